{{ config(alias='mart_cashflow_monthly') }}

{# What is selected is the product's: dbt/macros/marts/mart_cashflow_monthly.sql #}
{{ mart_cashflow_monthly(
    cash_flows=ref('harbor__stg_ledger'),
    cases=ref('harbor__stg_matters'),
    case_types=ref('harbor__stg_matter_kinds'),
    organisations=ref('harbor__stg_offices')
) }}

{{ config(alias='mart_cashflow_monthly') }}

{# What is selected is the product's: dbt/macros/marts/mart_cashflow_monthly.sql #}
{{ mart_cashflow_monthly(
    cash_flows=ref('acme__stg_cash_flow_entries'),
    cases=ref('acme__stg_cases'),
    case_types=ref('acme__stg_case_types'),
    organisations=ref('acme__stg_organisations')
) }}

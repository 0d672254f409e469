{{ config(alias='mart_case') }}

{# What is selected is the product's: dbt/macros/marts/mart_case.sql #}
{{ mart_case(
    cases=ref('harbor__stg_matters'),
    case_types=ref('harbor__stg_matter_kinds'),
    organisations=ref('harbor__stg_offices'),
    stakeholders=ref('harbor__stg_seats'),
    cash_flows=ref('harbor__stg_ledger')
) }}

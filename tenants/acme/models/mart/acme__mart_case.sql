{{ config(alias='mart_case') }}

{# What is selected is the product's: dbt/macros/marts/mart_case.sql #}
{{ mart_case(
    cases=ref('acme__stg_cases'),
    case_types=ref('acme__stg_case_types'),
    organisations=ref('acme__stg_organisations'),
    stakeholders=ref('acme__stg_stakeholders'),
    cash_flows=ref('acme__stg_cash_flow_entries')
) }}

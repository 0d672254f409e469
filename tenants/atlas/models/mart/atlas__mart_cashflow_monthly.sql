{{ config(alias='mart_cashflow_monthly') }}

{# What is selected is the product's: dbt/macros/marts/mart_cashflow_monthly.sql #}
{{ mart_cashflow_monthly(
    cash_flows=ref('atlas__stg_bookings'),
    cases=ref('atlas__stg_dossiers'),
    case_types=ref('atlas__stg_dossier_types'),
    organisations=ref('atlas__stg_offices')
) }}

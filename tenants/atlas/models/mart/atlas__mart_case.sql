{{ config(alias='mart_case') }}

{# What is selected is the product's: dbt/macros/marts/mart_case.sql #}
{{ mart_case(
    cases=ref('atlas__stg_dossiers'),
    case_types=ref('atlas__stg_dossier_types'),
    organisations=ref('atlas__stg_offices'),
    stakeholders=ref('atlas__stg_participants'),
    cash_flows=ref('atlas__stg_bookings')
) }}

{{ config(alias='mart_stakeholder') }}

{# What is selected is the product's: dbt/macros/marts/mart_stakeholder.sql #}
{{ mart_stakeholder(
    stakeholders=ref('atlas__stg_participants'),
    stakeholder_types=ref('atlas__stg_roles')
) }}

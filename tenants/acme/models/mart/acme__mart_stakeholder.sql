{{ config(alias='mart_stakeholder') }}

{# What is selected is the product's: dbt/macros/marts/mart_stakeholder.sql #}
{{ mart_stakeholder(
    stakeholders=ref('acme__stg_stakeholders'),
    stakeholder_types=ref('acme__stg_stakeholder_types')
) }}

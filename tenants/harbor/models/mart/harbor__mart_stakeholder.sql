{{ config(alias='mart_stakeholder') }}

{# What is selected is the product's: dbt/macros/marts/mart_stakeholder.sql #}
{{ mart_stakeholder(
    stakeholders=ref('harbor__stg_seats'),
    stakeholder_types=ref('harbor__stg_capacities')
) }}

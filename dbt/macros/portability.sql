{#- What DuckDB and Trino spell differently. Everything else in the models is SQL that both take as it stands. -#}

{#- The elements of a list of text, in order, with `, ` between them; NULL elements are left out. -#}
{% macro join_list(expression) -%}
    {{ adapter.dispatch('join_list', 'mozart')(expression) }}
{%- endmacro %}

{% macro default__join_list(expression) -%}
    array_to_string({{ expression }}, ', ')
{%- endmacro %}

{% macro trino__join_list(expression) -%}
    array_join({{ expression }}, ', ')
{%- endmacro %}

{#- The number of elements of a list, NULL elements included. -#}
{% macro list_size(expression) -%}
    {{ adapter.dispatch('list_size', 'mozart')(expression) }}
{%- endmacro %}

{% macro default__list_size(expression) -%}
    array_length({{ expression }})
{%- endmacro %}

{% macro trino__list_size(expression) -%}
    cardinality({{ expression }})
{%- endmacro %}

{#- A scalar at a JSON path of a JSON text, as text; NULL when it is not there. -#}
{% macro json_text(expression, path) -%}
    {{ adapter.dispatch('json_text', 'mozart')(expression, path) }}
{%- endmacro %}

{% macro default__json_text(expression, path) -%}
    json_extract_string({{ expression }}, '{{ path }}')
{%- endmacro %}

{% macro trino__json_text(expression, path) -%}
    json_extract_scalar({{ expression }}, '{{ path }}')
{%- endmacro %}

{#- The month of a date as an integer, 202403 for March 2024: the key of the time dimension. -#}
{% macro month_id(expression) -%}
    cast(extract(year from {{ expression }}) * 100 + extract(month from {{ expression }}) as integer)
{%- endmacro %}

{#- Whole cents → decimal(18,2), exactly: divided, DuckDB would make it a double. Too large an amount fails the model. -#}
{% macro money_of_cents(expression) -%}
    cast(cast({{ expression }} as decimal(20,0)) * cast('0.01' as decimal(2,2)) as decimal(18,2))
{%- endmacro %}

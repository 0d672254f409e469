{#-
  Contracts name types in the spelling DuckDB takes: varchar, bigint, integer, decimal(18,2), double, boolean, date,
  time, timestamp, timestamp with time zone. They mean microseconds, as in Iceberg. Trino reads the last three as
  milliseconds and DuckDB refuses a precision on types with a zone, so the precision is added here, for Trino only.

  not_null constraints are checked while a candidate is filled, at no cost, on both engines. The published table is
  made from the candidate's rows and has no required columns. Other constraints are not enforced by Trino and left out.
-#}
{% macro trino__get_empty_schema_sql(columns) -%}
    {{ return(default__get_empty_schema_sql(with_microseconds(columns))) }}
{%- endmacro %}

{% macro trino__get_table_columns_and_constraints() -%}
    (
    {{ adapter.render_raw_columns_constraints(raw_columns=with_microseconds(model['columns'])) | join(', ') }}
    )
{%- endmacro %}

{% macro with_microseconds(columns) -%}
    {%- set spelled = {
        'time': 'time(6)',
        'timestamp': 'timestamp(6)',
        'timestamp with time zone': 'timestamp(6) with time zone',
    } -%}
    {%- set changed = {} -%}
    {%- for name, column in columns.items() -%}
        {%- set copy = dict(column) -%}
        {%- do copy.update({'data_type': spelled.get(column['data_type'] | lower | trim, column['data_type']), 'constraints': copy.get('constraints', []) | selectattr('type', 'equalto', 'not_null') | list}) -%}
        {%- do changed.update({name: copy}) -%}
    {%- endfor -%}
    {{ return(changed) }}
{%- endmacro %}

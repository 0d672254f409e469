{#- The schema as configured, without dbt's usual prefix: the namespace of a tenant's tables is a contract. -#}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ return((custom_schema_name or target.schema) | trim) }}
{%- endmacro %}

{#- A model `{tenant}__{stg|mart}_{entity}` must say its table's name, which is the part after the tenant. -#}
{% macro generate_alias_name(custom_alias_name=none, node=none) -%}
    {%- if node is none or node.resource_type != 'model' -%}
        {{ return((custom_alias_name or node.name) | trim) }}
    {%- endif -%}
    {%- set prefix = env_var('MOZART_TENANT') ~ '__' -%}
    {%- set expected = node.name[prefix | length:] -%}
    {%- if not node.name.startswith(prefix) or not (expected.startswith('stg_') or expected.startswith('mart_')) -%}
        {{ exceptions.raise_compiler_error(
            node.original_file_path ~ ': a model is named ' ~ prefix ~ 'stg_{entity} or ' ~ prefix
            ~ 'mart_{entity}; rename the file') }}
    {%- endif -%}
    {%- if not custom_alias_name -%}
        {{ exceptions.raise_compiler_error(
            node.original_file_path ~ ": every model names its table; add {{ config(alias='" ~ expected ~ "') }}") }}
    {%- endif -%}
    {%- if custom_alias_name | trim != expected -%}
        {{ exceptions.raise_compiler_error(
            node.original_file_path ~ ": alias '" ~ custom_alias_name ~ "' must be '" ~ expected ~ "', as the file is named") }}
    {%- endif -%}
    {{ return(expected) }}
{%- endmacro %}

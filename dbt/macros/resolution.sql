{#-
  Where ref() points. On DuckDB a model that is built in this invocation is read from the candidates; one that is not
  is read as published, from the lake. So a partial build sees the rest of the tenant as its readers see it, and a
  data test on a selected model tests the candidate before anything is published.

  `selected_resources` is what --select chose. It is empty while parsing, when the answer does not matter.
  On other engines models are built where they are published and ref() is dbt's own.
-#}
{% macro ref() -%}
    {%- set version = kwargs.get('version', kwargs.get('v')) -%}
    {%- set name = varargs[-1] -%}
    {%- set package = varargs[0] if varargs | length > 1 else none -%}
    {%- if package -%}
        {%- set relation = builtins.ref(package, name, version=version) -%}
    {%- else -%}
        {%- set relation = builtins.ref(name, version=version) -%}
    {%- endif -%}
    {%- if not execute or relation.is_cte -%}
        {{ return(relation) }}
    {%- endif -%}
    {%- set id = (package or project_name) ~ '.' ~ name -%}
    {%- if 'model.' ~ id in selected_resources or 'seed.' ~ id in selected_resources -%}
        {{ return(relation) }}
    {%- endif -%}
    {{ return(adapter.dispatch('published', 'mozart')(relation)) }}
{%- endmacro %}

{% macro default__published(relation) -%}
    {{ return(relation) }}
{%- endmacro %}

{#- `lake` is the name the catalog is attached under; a tenant's _sources.yml names the same. -#}
{% macro duckdb__published(relation) -%}
    {{ return(relation.replace_path(database='lake')) }}
{%- endmacro %}

{#- Incremental models: Mozart decides whether one is computed whole or as a delta, and merges the delta itself.

    The decision is the config value `mozart_delta`, which Mozart's process puts on the parsed model: none, or where the
    delta goes (database, schema, identifier), the published table's columns, and the SELECT of the merged rows. dbt
    changes nothing that is published: what is built here is tested first. Without Mozart (`mozart validate` alone parses
    and builds without it) a model is computed whole. -#}

{#- dbt's own asks the database whether `this` is a table; here candidates start from nothing in every run. -#}
{% macro is_incremental() %}
    {{ return(execute and config.get('mozart_delta') is not none) }}
{% endmacro %}

{#- Where the rows go that this run computes: the delta's own table, or the model's. -#}
{% macro incremental_target(delta) %}
    {%- if delta is none -%}
        {{ return(this.incorporate(type='table')) }}
    {%- endif -%}
    {{ return(api.Relation.create(
        database=delta.database, schema=delta.schema, identifier=delta.identifier, type='table')) }}
{% endmacro %}

{#- Compute the rows, the contract enforced on them, and refuse what cannot be merged. -#}
{% macro build_incremental_rows(rows, delta, sql) %}
    {% call statement('main') -%}
        {{ create_table_as(False, rows, sql) }}
    {%- endcall %}
    {% do require_unique_key(rows) %}
    {% if delta is not none %}
        {% do require_published_columns(rows, delta) %}
    {% endif %}
{% endmacro %}

{#- Also of a whole table: a key that is there twice would be merged into one row, or into two. No value is shown. -#}
{% macro require_unique_key(rows) %}
    {%- set unique_key = config.get('unique_key') -%}
    {%- set names = [unique_key] if unique_key is string else unique_key -%}
    {%- set columns = [] -%}
    {%- for name in names -%}
        {%- do columns.append(adapter.quote(name)) -%}
    {%- endfor -%}
    {%- set missing = 'select count(*) from ' ~ rows ~ ' where ' ~ columns | join(' is null or ') ~ ' is null' -%}
    {%- set repeated = 'select 1 from ' ~ rows ~ ' group by ' ~ columns | join(', ') ~ ' having count(*) > 1' -%}
    {%- set found = run_query('select (' ~ missing ~ '), (select count(*) from (' ~ repeated ~ '))').rows[0] -%}
    {%- set key = 'unique_key (' ~ names | join(', ') ~ ')' -%}
    {%- if found[0] -%}
        {%- do exceptions.raise_compiler_error(
            key ~ ' is NULL in ' ~ found[0] ~ ' of the computed rows; filter them, or choose another key') -%}
    {%- endif -%}
    {%- if found[1] -%}
        {%- do exceptions.raise_compiler_error(
            key ~ ' comes more than once for ' ~ found[1]
            ~ ' of its values among the computed rows; select one row for each, or choose another key') -%}
    {%- endif -%}
{% endmacro %}

{% macro require_published_columns(rows, delta) %}
    {%- set computed = adapter.get_columns_in_relation(rows) | map(attribute='name') | map('lower') | sort -%}
    {%- set published = delta.columns | map('lower') | sort -%}
    {%- if computed != published -%}
        {%- do exceptions.raise_compiler_error(
            'it gives other columns (' ~ computed | join(', ') ~ ') than the published table has ('
            ~ published | join(', ') ~ '); run the tenant with full_refresh=true') -%}
    {%- endif -%}
{% endmacro %}

{#- `this` shows the published rows while the delta is computed, and the merged ones from then on. -#}
{% materialization incremental, adapter='duckdb', supported_languages=['sql'] %}
    {%- set delta = config.get('mozart_delta') -%}
    {%- set rows = incremental_target(delta) -%}
    {%- if delta is none -%}
        {% do drop_relation_if_exists(load_cached_relation(rows)) %}
    {%- endif -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {{ run_hooks(pre_hooks, inside_transaction=True) }}
    {% do build_incremental_rows(rows, delta, compiled_code) %}
    {% if delta is not none %}
        {% call statement('merged') -%}
            create or replace view {{ this }} as {{ delta.merged }}
        {%- endcall %}
    {% endif %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [this.incorporate(type='table' if delta is none else 'view')]}) }}
{% endmaterialization %}

{#- Who reads the merged rows gets the SELECT in the place of a name: see mozart.engine.dbt_trino. -#}
{% materialization incremental, adapter='trino', supported_languages=['sql'] %}
    {%- set delta = config.get('mozart_delta') -%}
    {%- set rows = incremental_target(delta) -%}
    {% do drop_relation_if_exists(load_cached_relation(rows)) %}
    {{ run_hooks(pre_hooks) }}
    {% do build_incremental_rows(rows, delta, compiled_code) %}
    {{ run_hooks(post_hooks) }}
    {{ return({'relations': [rows]}) }}
{% endmaterialization %}

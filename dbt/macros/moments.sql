{#- Moments as sources write them → timestamp with time zone. One that cannot be read as such fails the model. -#}

{#-
  A timestamp without zone that the source wrote in local time. An hour that clocks have twice means standard time and
  one that they skip is read as if they had not, as PostgreSQL does it. Trino has not been run on either.
-#}
{% macro local_moment(expression, zone) -%}
    {{ adapter.dispatch('local_moment', 'mozart')(expression, zone) }}
{%- endmacro %}

{% macro default__local_moment(expression, zone) -%}
    timezone('{{ zone }}', {{ expression }})
{%- endmacro %}

{% macro trino__local_moment(expression, zone) -%}
    with_timezone({{ expression }}, '{{ zone }}')
{%- endmacro %}

{#- Whole seconds since 1970-01-01 00:00 UTC. -#}
{% macro epoch_moment(expression) -%}
    {{ adapter.dispatch('epoch_moment', 'mozart')(expression) }}
{%- endmacro %}

{% macro default__epoch_moment(expression) -%}
    to_timestamp({{ expression }})
{%- endmacro %}

{% macro trino__epoch_moment(expression) -%}
    cast(from_unixtime({{ expression }}) as timestamp(6) with time zone)
{%- endmacro %}

{#- ISO 8601 text with a zone: 2024-03-01T12:00:00Z. -#}
{% macro iso_moment(expression) -%}
    {{ adapter.dispatch('iso_moment', 'mozart')(expression) }}
{%- endmacro %}

{% macro default__iso_moment(expression) -%}
    cast({{ expression }} as timestamp with time zone)
{%- endmacro %}

{% macro trino__iso_moment(expression) -%}
    cast(from_iso8601_timestamp_nanos({{ expression }}) as timestamp(6) with time zone)
{%- endmacro %}

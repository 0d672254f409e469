{#-
  Money by kind of case, organisation and month of booking; columns as in product_schema.yml. The SQL of this mart for
  every tenant, called by its model with the staging models that hold what is read here.

  cash_flows      case_id, flow_type (in, out), amount (without sign), entry_date
  cases           case_id (unique), case_type_id, org_id
  case_types      case_type_id (unique), code (unique), name
  organisations   org_id (unique), code (unique), name

  Grouped by code, not by key: kinds that are not loaded share one row UNKNOWN, however many there are.
-#}
{% macro mart_cashflow_monthly(cash_flows, cases, case_types, organisations) -%}
-- An entry whose case is not loaded yet has no kind and no organisation; it counts once its case is there.
with monthly as (

    select
        coalesce(case_types.code, 'UNKNOWN') as case_type_code,
        case_types.name as case_type_name,
        coalesce(organisations.code, 'UNKNOWN') as org_code,
        organisations.name as org_name,
        {{ month_id('entries.entry_date') }} as month_id,
        cast(date_trunc('month', entries.entry_date) as date) as month_start,
        count(distinct entries.case_id) as case_count,
        count(*) as entry_count,
        sum(case when entries.flow_type = 'in' then entries.amount else 0 end) as money_in,
        sum(case when entries.flow_type = 'out' then entries.amount else 0 end) as money_out

    from {{ cash_flows }} as entries
    inner join {{ cases }} as cases on entries.case_id = cases.case_id
    left join {{ case_types }} as case_types on cases.case_type_id = case_types.case_type_id
    left join {{ organisations }} as organisations on cases.org_id = organisations.org_id
    group by 1, 2, 3, 4, 5, 6

),

final as (

    select
        case_type_code,
        case_type_name,
        org_code,
        org_name,
        month_id,
        month_start,
        case_count,
        entry_count,
        cast(money_in as decimal(18,2)) as money_in,
        cast(money_out as decimal(18,2)) as money_out,
        cast(money_in - money_out as decimal(18,2)) as net_money

    from monthly

)

select * from final
{%- endmacro %}

{#-
  One row a case; columns as in product_schema.yml. The SQL of this mart for every tenant: its model calls this with
  the staging models that hold what is read here. Keys may have any type, the same on both sides of a join.

  cases           case_id, reference, title, status, case_type_id, org_id, channel, priority, is_confidential,
                  claimed_amount, opened_at, closed_at, updated_at
  case_types      case_type_id (unique), code (unique), name
  organisations   org_id (unique), code (unique), name, country
  stakeholders    case_id, party_no, admitted_at
  cash_flows      case_id, flow_type (in, out), amount (without sign), entry_date
-#}
{% macro mart_case(cases, case_types, organisations, stakeholders, cash_flows) -%}
with stakeholders as (

    select
        case_id,
        count(*) as stakeholder_count,
        count(distinct party_no) as party_count,
        count(admitted_at) as admitted_count

    from {{ stakeholders }}
    group by case_id

),

cash_flows as (

    select
        case_id,
        count(*) as cash_flow_count,
        sum(case when flow_type = 'in' then amount else 0 end) as money_in,
        sum(case when flow_type = 'out' then amount else 0 end) as money_out,
        max(entry_date) as last_cash_flow_on

    from {{ cash_flows }}
    group by case_id

),

final as (

    select
        cases.case_id,
        cases.reference,
        cases.title,
        cases.status,
        coalesce(case_types.code, 'UNKNOWN') as case_type_code,
        case_types.name as case_type_name,
        coalesce(organisations.code, 'UNKNOWN') as org_code,
        organisations.name as org_name,
        organisations.country as org_country,
        cases.channel,
        cases.priority,
        cases.is_confidential,
        cases.claimed_amount,
        cases.opened_at,
        {{ month_id('cases.opened_at') }} as opened_month_id,
        cases.closed_at,
        cast(
            date_diff('day', cast(cases.opened_at as date), cast(cases.closed_at as date)) as integer
        ) as days_to_close,
        coalesce(stakeholders.stakeholder_count, 0) as stakeholder_count,
        coalesce(stakeholders.party_count, 0) as party_count,
        coalesce(stakeholders.admitted_count, 0) as admitted_count,
        coalesce(cash_flows.cash_flow_count, 0) as cash_flow_count,
        cast(coalesce(cash_flows.money_in, 0) as decimal(18,2)) as money_in,
        cast(coalesce(cash_flows.money_out, 0) as decimal(18,2)) as money_out,
        cast(coalesce(cash_flows.money_in - cash_flows.money_out, 0) as decimal(18,2)) as net_money,
        cash_flows.last_cash_flow_on,
        cases.updated_at

    from {{ cases }} as cases
    left join {{ case_types }} as case_types on cases.case_type_id = case_types.case_type_id
    left join {{ organisations }} as organisations on cases.org_id = organisations.org_id
    left join stakeholders on cases.case_id = stakeholders.case_id
    left join cash_flows on cases.case_id = cash_flows.case_id

)

select * from final
{%- endmacro %}

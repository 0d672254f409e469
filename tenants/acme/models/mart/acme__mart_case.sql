{{ config(alias='mart_case') }}

with cases as (

    select * from {{ ref('acme__stg_cases') }}

),

case_types as (

    select * from {{ ref('acme__stg_case_types') }}

),

organisations as (

    select * from {{ ref('acme__stg_organisations') }}

),

stakeholders as (

    select
        case_id,
        count(*) as stakeholder_count,
        count(distinct party_no) as party_count,
        count(admitted_at) as admitted_count

    from {{ ref('acme__stg_stakeholders') }}
    group by case_id

),

cash_flows as (

    select
        case_id,
        count(*) as cash_flow_count,
        sum(case when flow_type = 'in' then amount else 0 end) as money_in,
        sum(case when flow_type = 'out' then amount else 0 end) as money_out,
        max(entry_date) as last_cash_flow_on

    from {{ ref('acme__stg_cash_flow_entries') }}
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

    from cases
    left join case_types on cases.case_type_id = case_types.case_type_id
    left join organisations on cases.org_id = organisations.org_id
    left join stakeholders on cases.case_id = stakeholders.case_id
    left join cash_flows on cases.case_id = cash_flows.case_id

)

select * from final

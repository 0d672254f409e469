{{ config(alias='mart_cashflow_monthly') }}

with entries as (

    select * from {{ ref('acme__stg_cash_flow_entries') }}

),

cases as (

    select * from {{ ref('acme__stg_cases') }}

),

case_types as (

    select * from {{ ref('acme__stg_case_types') }}

),

organisations as (

    select * from {{ ref('acme__stg_organisations') }}

),

-- An entry whose case is not loaded yet has no kind and no organisation; it counts once its case is there.
monthly as (

    select
        cases.case_type_id,
        cases.org_id,
        {{ month_id('entries.entry_date') }} as month_id,
        cast(date_trunc('month', entries.entry_date) as date) as month_start,
        count(distinct entries.case_id) as case_count,
        count(*) as entry_count,
        sum(case when entries.flow_type = 'in' then entries.amount else 0 end) as money_in,
        sum(case when entries.flow_type = 'out' then entries.amount else 0 end) as money_out

    from entries
    inner join cases on entries.case_id = cases.case_id
    group by 1, 2, 3, 4

),

final as (

    select
        coalesce(case_types.code, 'UNKNOWN') as case_type_code,
        case_types.name as case_type_name,
        coalesce(organisations.code, 'UNKNOWN') as org_code,
        organisations.name as org_name,
        monthly.month_id,
        monthly.month_start,
        monthly.case_count,
        monthly.entry_count,
        cast(monthly.money_in as decimal(18,2)) as money_in,
        cast(monthly.money_out as decimal(18,2)) as money_out,
        cast(monthly.money_in - monthly.money_out as decimal(18,2)) as net_money

    from monthly
    left join case_types on monthly.case_type_id = case_types.case_type_id
    left join organisations on monthly.org_id = organisations.org_id

)

select * from final

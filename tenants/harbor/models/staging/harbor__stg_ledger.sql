{{ config(alias='stg_ledger') }}

with source as (

    select * from {{ source('harbor_raw', 'ledger') }}

),

renamed as (

    select

        ---------- ids
        posting_no as entry_id,
        matter_no as case_id,

        ---------- text
        case when amount < 0 then 'out' else 'in' end as flow_type,
        trim(account) as category,
        nullif(trim(wording), '') as memo,

        ---------- numbers
        cast(abs(amount) as decimal(18,2)) as amount,

        ---------- times
        booked as entry_date

    from source

)

select * from renamed

{{ config(alias='stg_cash_flow_entries') }}

with source as (

    select * from {{ source('acme_raw', 'cash_flow_entries') }}

),

renamed as (

    select

        ---------- ids
        entry_id,
        case_id,

        ---------- text
        flow_type,
        category,
        nullif(trim(memo), '') as memo,

        ---------- numbers
        cast(amount as decimal(18,2)) as amount,

        ---------- booleans
        is_final,

        ---------- times
        entry_date,
        value_time,
        updated_at

    from source

)

select * from renamed

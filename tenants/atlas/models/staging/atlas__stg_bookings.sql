{{ config(alias='stg_bookings') }}

with source as (

    select * from {{ source('atlas_raw', 'bookings') }}

),

renamed as (

    select

        ---------- ids
        bookingid as entry_id,
        dossierid as case_id,

        ---------- text
        case when centsout > 0 then 'out' else 'in' end as flow_type,
        nullif(trim(purpose), '') as memo,

        ---------- numbers
        {{ money_of_cents('centsin + centsout') }} as amount,

        ---------- booleans
        isfinal as is_final,

        ---------- times
        cast(bookingday as date) as entry_date

    from source

)

select * from renamed

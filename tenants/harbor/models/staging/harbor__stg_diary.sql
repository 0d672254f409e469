{{ config(alias='stg_diary') }}

with source as (

    select * from {{ source('harbor_raw', 'diary') }}

),

renamed as (

    select

        ---------- ids
        matter_no as case_id,

        ---------- text
        trim(entry) as entry,

        ---------- times
        noted as noted_at

    from source

)

select * from renamed

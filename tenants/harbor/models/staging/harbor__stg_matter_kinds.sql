{{ config(alias='stg_matter_kinds') }}

with source as (

    select * from {{ source('harbor_raw', 'matter_kinds') }}

),

renamed as (

    select

        ---------- ids
        trim(kind_code) as case_type_id,

        ---------- text
        trim(kind_code) as code,
        trim(caption) as name,

        ---------- times
        retired_on

    from source

)

select * from renamed

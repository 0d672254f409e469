{{ config(alias='stg_case_types') }}

with source as (

    select * from {{ source('acme_raw', 'case_types') }}

),

renamed as (

    select

        ---------- ids
        cast(case_type_id as integer) as case_type_id,

        ---------- text
        trim(code) as code,
        trim(name) as name,

        ---------- numbers
        cast(weight as double) as weight,

        ---------- booleans
        is_active,

        ---------- times
        desk_closes_at

    from source

)

select * from renamed

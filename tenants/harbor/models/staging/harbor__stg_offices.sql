{{ config(alias='stg_offices') }}

with source as (

    select * from {{ source('harbor_raw', 'offices') }}

),

renamed as (

    select

        ---------- ids
        office_code as org_id,

        ---------- text
        office_code as code,
        trim(title) as name,
        upper(ctry) as country

    from source

)

select * from renamed

{{ config(alias='stg_parties') }}

with source as (

    select * from {{ source('harbor_raw', 'parties') }}

),

renamed as (

    select

        ---------- ids
        party_id as party_no,

        ---------- text
        trim(display_name) as name,
        nullif(lower(trim(mail)), '') as email,
        nullif(upper(ctry), 'XX') as country,

        ---------- booleans
        legal_form <> 'P' as is_organisation,

        ---------- times
        changed as updated_at

    from source

)

select * from renamed

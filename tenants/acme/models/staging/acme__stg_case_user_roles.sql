{{ config(alias='stg_case_user_roles') }}

with source as (

    select * from {{ source('acme_raw', 'case_user_roles') }}

),

renamed as (

    select

        ---------- ids
        case_id,
        cast(user_id as integer) as user_id,

        ---------- text
        role,

        ---------- times
        granted_at,
        updated_at

    from source

)

select * from renamed

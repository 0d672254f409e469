{{ config(alias='stg_stakeholder_types') }}

with source as (

    select * from {{ source('acme_raw', 'stakeholder_types') }}

),

renamed as (

    select

        ---------- ids
        cast(stk_type_id as integer) as stk_type_id,

        ---------- text
        code,
        trim(name) as name,
        role,

        ---------- booleans
        may_vote

    from source

)

select * from renamed

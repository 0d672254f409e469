{{ config(alias='stg_matter_states') }}

with source as (

    select * from {{ source('harbor_raw', 'matter_states') }}

),

renamed as (

    select

        ---------- ids
        state_no,

        ---------- text
        token,
        meaning

    from source

)

select * from renamed

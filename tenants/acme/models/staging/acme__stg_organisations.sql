{{ config(alias='stg_organisations') }}

with source as (

    select * from {{ source('acme_raw', 'organisations') }}

),

renamed as (

    select

        ---------- ids
        cast(org_id as integer) as org_id,

        ---------- text
        trim(code) as code,
        trim(name) as name,
        upper(trim(country)) as country,
        region,
        nullif({{ join_list('domains') }}, '') as domains,
        network,

        ---------- times
        founded_on,
        listed_at

    from source

)

select * from renamed

{{ config(alias='stg_assets') }}

with source as (

    select * from {{ source('acme_raw', 'assets') }}

),

renamed as (

    select

        ---------- ids
        asset_id,
        case_id,

        ---------- text
        trim(asset_class) as asset_class,
        trim(description) as description,
        lower(to_hex(fingerprint)) as fingerprint,

        ---------- numbers
        cast(value as decimal(18,4)) as asset_value,
        quantity,

        ---------- times
        acquired_on,
        inspected_at,
        updated_at

    from source

)

select * from renamed

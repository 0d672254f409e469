{{ config(alias='stg_stakeholders') }}

with source as (

    select * from {{ source('acme_raw', 'stakeholders') }}

),

renamed as (

    select

        ---------- ids
        stakeholder_id,
        case_id,
        cast(stk_type_id as integer) as stk_type_id,
        party_no,

        ---------- text
        trim(name) as name,
        nullif(lower(trim(email)), '') as email,
        nullif(upper(trim(country)), '') as country,

        ---------- numbers
        cast(claim_amount as decimal(18,2)) as claim_amount,

        ---------- booleans
        is_organisation,
        admitted_at is not null as is_admitted,

        ---------- times
        registered_at,
        admitted_at,
        updated_at

    from source

)

select * from renamed

{{ config(alias='stg_seats') }}

with source as (

    select * from {{ source('harbor_raw', 'seats') }}

),

parties as (

    select * from {{ ref('harbor__stg_parties') }}

),

renamed as (

    select

        ---------- ids
        source.seat_id as stakeholder_id,
        source.matter_no as case_id,
        upper(trim(source.capacity_code)) as stk_type_id,
        source.party_id as party_no,

        ---------- text
        coalesce(parties.name, 'UNKNOWN') as name,
        parties.email,
        parties.country,

        ---------- numbers
        cast(source.claimed as decimal(18,2)) as claim_amount,

        ---------- booleans
        coalesce(parties.is_organisation, false) as is_organisation,
        source.admitted is not null as is_admitted,

        ---------- times
        {{ local_moment('source.joined', 'Europe/Oslo') }} as registered_at,
        {{ local_moment('source.admitted', 'Europe/Oslo') }} as admitted_at,
        {{ local_moment('source.changed', 'Europe/Oslo') }} as updated_at

    from source
    left join parties on source.party_id = parties.party_no

)

select * from renamed

{{ config(alias='stg_participants') }}

with source as (

    select * from {{ source('atlas_raw', 'participants') }}

),

renamed as (

    select

        ---------- ids
        participantid as stakeholder_id,
        dossierid as case_id,
        rolecode as stk_type_id,
        personno as party_no,

        ---------- text
        trim(personname) as name,
        nullif(lower(trim(personmail)), '') as email,
        nullif(upper(trim(personland)), '') as country,

        ---------- numbers
        {{ money_of_cents('claimcents') }} as claim_amount,

        ---------- booleans
        iscompany <> 0 as is_organisation,
        admittedat is not null as is_admitted,

        ---------- times
        {{ iso_moment('registeredon') }} as registered_at,
        {{ epoch_moment('admittedat') }} as admitted_at

    from source

)

select * from renamed

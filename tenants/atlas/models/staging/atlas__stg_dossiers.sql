{{ config(alias='stg_dossiers') }}

with source as (

    select * from {{ source('atlas_raw', 'dossiers') }}

),

renamed as (

    select

        ---------- ids
        dossierid as case_id,
        kindcode as case_type_id,
        officecode as org_id,

        ---------- text
        dossierref as reference,
        trim(heading) as title,
        -- A phase nobody knows stays as it is, so that the test of the values names it.
        case phase
            when 'offen' then 'open'
            when 'prüfung' then 'in_review'
            when 'ruht' then 'on_hold'
            when 'erledigt' then 'closed'
            else phase
        end as status,
        case receivedby when 'Netz' then 'web' when 'Telefon' then 'phone' when 'Post' then 'mail' else receivedby end as channel,

        ---------- numbers
        cast(nullif(priority, 0) as integer) as priority,
        {{ money_of_cents('claimcents') }} as claimed_amount,

        ---------- booleans
        islocked as is_confidential,

        ---------- times
        {{ epoch_moment('openedat') }} as opened_at,
        {{ epoch_moment('nullif(closedat, 0)') }} as closed_at,
        {{ iso_moment('modifiedon') }} as updated_at

    from source

)

select * from renamed

{{ config(alias='stg_matters') }}

with source as (

    select * from {{ source('harbor_raw', 'matters') }}

),

states as (

    select * from {{ source('harbor_raw', 'matter_states') }}

),

renamed as (

    select

        ---------- ids
        source.matter_no as case_id,
        trim(source.kind_code) as case_type_id,
        source.office_code as org_id,

        ---------- text
        source.file_ref as reference,
        trim(source.subject) as title,
        -- A token nobody knows stays as it is, so that the test of the values names it.
        case states.token
            when 'OPEN' then 'open'
            when 'REVIEW' then 'in_review'
            when 'HOLD' then 'on_hold'
            when 'DONE' then 'closed'
            else coalesce(states.token, 'state ' || cast(source.state_no as varchar))
        end as status,
        case source.intake
            when 'WEB' then 'web'
            when 'TEL' then 'phone'
            when 'MAIL' then 'e-mail'
            when 'PART' then 'partner'
            else nullif(lower(trim(source.intake)), '')
        end as channel,

        ---------- numbers
        case source.urgency when 'A' then 5 when 'B' then 4 when 'C' then 3 when 'D' then 2 when 'E' then 1 end as priority,
        cast(coalesce(source.claim, '0') as decimal(18,2)) as claimed_amount,

        ---------- booleans
        source.secrecy > 0 as is_confidential,

        ---------- times
        source.opened as opened_at,
        -- The source writes 1900 for "not closed".
        case when extract(year from source.closed) > 1900 then source.closed end as closed_at,
        source.changed as updated_at

    from source
    left join states on source.state_no = states.state_no

)

select * from renamed

{{ config(alias='stg_cases') }}

with source as (

    select * from {{ source('acme_raw', 'cases') }}

),

renamed as (

    select

        ---------- ids
        case_id,
        lower(case_uid) as case_uid,
        trim(reference) as reference,
        cast(case_type_id as integer) as case_type_id,
        cast(org_id as integer) as org_id,

        ---------- text
        status,
        trim(title) as title,
        {{ json_text('attributes', '$.channel') }} as channel,
        nullif({{ join_list('tags') }}, '') as tags,
        service_level,

        ---------- numbers
        cast(priority as integer) as priority,
        cast(amount as decimal(18,2)) as claimed_amount,
        cast(risk_score as double) as risk_score,

        ---------- booleans
        is_confidential,

        ---------- times
        opened_at,
        closed_at,
        due_on,
        updated_at

    from source

)

select * from renamed

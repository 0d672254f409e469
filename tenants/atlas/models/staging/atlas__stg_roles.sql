{{ config(alias='stg_roles') }}

-- Written out in every row of the source and corrected in later ones only: the latest row says it.
with numbered as (

    select
        *,
        row_number() over (partition by rolecode order by participantid desc) as recency

    from {{ source('atlas_raw', 'participants') }}
    where rolecode is not null

),

renamed as (

    select

        ---------- ids
        rolecode as stk_type_id,

        ---------- text
        roleside as role

    from numbered
    where recency = 1

)

select * from renamed

{{ config(alias='stg_offices') }}

-- Written out in every row of the source and corrected in later ones only: the latest row says it.
with numbered as (

    select
        *,
        row_number() over (partition by officecode order by dossierid desc) as recency

    from {{ source('atlas_raw', 'dossiers') }}
    where officecode is not null

),

renamed as (

    select

        ---------- ids
        officecode as org_id,

        ---------- text
        officecode as code,
        trim(officename) as name,
        nullif(upper(trim(officeland)), '') as country

    from numbered
    where recency = 1

)

select * from renamed

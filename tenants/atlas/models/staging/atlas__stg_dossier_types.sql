{{ config(alias='stg_dossier_types') }}

-- Written out in every row of the source and corrected in later ones only: the latest row says it.
with numbered as (

    select
        *,
        row_number() over (partition by kindcode order by dossierid desc) as recency

    from {{ source('atlas_raw', 'dossiers') }}
    where kindcode is not null

),

renamed as (

    select

        ---------- ids
        kindcode as case_type_id,

        ---------- text
        kindcode as code,
        trim(kindname) as name

    from numbered
    where recency = 1

)

select * from renamed

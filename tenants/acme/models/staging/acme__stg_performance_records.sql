{{ config(alias='stg_performance_records') }}

with source as (

    select * from {{ source('acme_raw', 'performance_records') }}

),

renamed as (

    select

        ---------- ids
        record_id,
        case_id,

        ---------- text
        metric,

        ---------- numbers
        cast(score as decimal(6,2)) as score,
        cast(ratio as double) as ratio,
        cast({{ list_size('samples') }} as integer) as sample_count,

        ---------- times
        period_start,
        recorded_at,
        updated_at

    from source

)

select * from renamed

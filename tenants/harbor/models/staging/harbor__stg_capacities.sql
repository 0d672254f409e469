{{ config(alias='stg_capacities') }}

with source as (

    select * from {{ source('harbor_raw', 'capacities') }}

),

renamed as (

    select

        ---------- ids
        upper(trim(capacity_code)) as stk_type_id,

        ---------- text
        trim(label) as name,
        case side
            when 'A' then 'claimant'
            when 'B' then 'respondent'
            when 'O' then 'officer'
            when 'C' then 'adviser'
            else 'side ' || side
        end as role

    from source

)

select * from renamed

{#-
  One row a party; columns as in product_schema.yml. The SQL of this mart for every tenant, called by its model with the
  staging models that hold what is read here.

  stakeholders        stakeholder_id (unique; the order of registrations at the same moment), case_id, stk_type_id,
                      party_no, name, email, country, is_organisation, claim_amount, registered_at, admitted_at
  stakeholder_types   stk_type_id (unique), role
-#}
{% macro mart_stakeholder(stakeholders, stakeholder_types) -%}
with stakeholders as (

    select * from {{ stakeholders }}

),

numbered as (

    select
        *,
        row_number() over (partition by party_no order by registered_at desc, stakeholder_id desc) as recency

    from stakeholders

),

latest as (

    select * from numbered where recency = 1

),

parties as (

    select
        stakeholders.party_no,
        {{ join_list('array_sort(array_agg(distinct stakeholder_types.role))') }} as roles,
        count(*) as participation_count,
        count(distinct stakeholders.case_id) as case_count,
        count(stakeholders.admitted_at) as admitted_count,
        sum(stakeholders.claim_amount) as claimed_amount,
        min(stakeholders.registered_at) as first_registered_at,
        max(stakeholders.registered_at) as last_registered_at,
        min(stakeholders.admitted_at) as first_admitted_at

    from stakeholders
    left join {{ stakeholder_types }} as stakeholder_types
        on stakeholders.stk_type_id = stakeholder_types.stk_type_id
    group by stakeholders.party_no

),

final as (

    select
        parties.party_no,
        latest.name,
        latest.email,
        latest.country,
        latest.is_organisation,
        nullif(parties.roles, '') as roles,
        parties.participation_count,
        parties.case_count,
        parties.admitted_count,
        cast(coalesce(parties.claimed_amount, 0) as decimal(18,2)) as claimed_amount,
        latest.case_id as latest_case_id,
        parties.first_registered_at,
        parties.last_registered_at,
        parties.first_admitted_at

    from parties
    inner join latest on parties.party_no = latest.party_no

)

select * from final
{%- endmacro %}

-- One row per case and kind of stakeholder. Every row follows from the rows of one case.
SELECT
    c.case_id,
    c.case_type_id,
    c.org_id,
    (extract(year FROM c.opened_at AT TIME ZONE 'UTC') * 100
        + extract(month FROM c.opened_at AT TIME ZONE 'UTC'))::int AS time_id,
    s.stk_type_id,
    (c.status <> 'closed')::int AS is_open,
    s.stakeholders,
    s.admitted,
    s.claim_amount,
    c.amount AS case_amount,
    p.performances,
    p.score,
    a.asset_value,
    r.roles
FROM cases AS c
JOIN (
    SELECT case_id, stk_type_id, count(*) AS stakeholders, count(admitted_at) AS admitted,
        sum(claim_amount) AS claim_amount
    FROM stakeholders
    GROUP BY case_id, stk_type_id
) AS s ON s.case_id = c.case_id
LEFT JOIN (
    SELECT case_id, count(*) AS performances, sum(score) AS score
    FROM performance_records
    GROUP BY case_id
) AS p ON p.case_id = c.case_id
LEFT JOIN (
    SELECT case_id, sum(value) AS asset_value
    FROM assets
    GROUP BY case_id
) AS a ON a.case_id = c.case_id
LEFT JOIN (
    SELECT case_id, count(*) AS roles
    FROM case_user_roles
    GROUP BY case_id
) AS r ON r.case_id = c.case_id

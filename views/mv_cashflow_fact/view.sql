-- One row per entry. Every row follows from the rows of one case.
SELECT
    e.case_id,
    c.case_type_id,
    c.org_id,
    (extract(year FROM e.entry_date) * 100 + extract(month FROM e.entry_date))::int AS time_id,
    e.flow_type::text AS flow_type,
    e.is_final::int AS is_final,
    e.amount
FROM cash_flow_entries AS e
JOIN cases AS c ON c.case_id = e.case_id

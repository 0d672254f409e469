SELECT stk_type_id, code, name, role, may_vote
FROM stakeholder_types

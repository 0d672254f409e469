SELECT case_type_id, rtrim(code) AS code, name, is_active
FROM case_types

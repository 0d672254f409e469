SELECT org_id, code, name, country, region, founded_on
FROM organisations

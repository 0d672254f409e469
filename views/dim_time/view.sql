SELECT
    year * 100 + month AS time_id,
    year,
    (month + 2) / 3 AS quarter,
    month,
    make_date(year, month, 1) AS first_day,
    (make_date(year, month, 1) + interval '1 month - 1 day')::date AS last_day
FROM generate_series(2000, 2049) AS year
CROSS JOIN generate_series(1, 12) AS month

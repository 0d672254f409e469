"""dbt unit tests of the mart `incremental_case.BY_CASE`: its whole form, and its delta beside published rows."""

UNIT_TESTS = """\
version: 2
unit_tests:
  - name: adds_up_whole
    model: tiny__mart_by_case
    overrides: {macros: {is_incremental: false}}
    given:
      - input: ref('tiny__stg_flows')
        rows: [{id: 1, case_id: 7, amount: 2}, {id: 2, case_id: 7, amount: 3}]
    expect: {rows: [{case_id: 7, last_flow: 2, total: 5}]}
  - name: adds_up_newer
    model: tiny__mart_by_case
    overrides: {macros: {is_incremental: true}}
    given:
      - input: ref('tiny__stg_flows')
        rows: [{id: 1, case_id: 6, amount: 4}, {id: 2, case_id: 7, amount: 2}, {id: 3, case_id: 7, amount: 3}]
      - input: this
        rows: [{case_id: 6, last_flow: 1, total: 4}]
    expect: {rows: [{case_id: 7, last_flow: 3, total: 5}]}
"""
WRONG = UNIT_TESTS.replace("last_flow: 3, total: 5", "last_flow: 3, total: 6")

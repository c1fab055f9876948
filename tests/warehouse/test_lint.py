from pathlib import Path

import pytest

from warehouse.lint import findings, lint_model, lint_preludes, lint_text, prelude_functions

SQL_DIR = Path(__file__).resolve().parents[2] / "sql"


def test_every_model_stays_inside_the_portable_subset() -> None:
    assert findings(SQL_DIR) == []


def test_both_preludes_make_the_same_functions() -> None:
    made = prelude_functions(SQL_DIR / "prelude" / "duckdb.sql")
    assert {"safe_ratio", "wilson_low", "period_start", "local_midnight"} <= set(made)
    assert made["period_add"] == ("local_day", "period", "number")
    assert list(lint_preludes(SQL_DIR / "prelude")) == []


@pytest.mark.parametrize(
    ("sql", "finding"),
    [
        ("select a::int as x from t", "`::`"),
        ("select * from t", "the final select is `*`"),
        ("select a // 2 as b from t", "does not parse as spark SQL"),
        ("select row_number() over (partition by a) as r from t", "without `order by`"),
        ("select lag(a) over w as b from t window w as (partition by c)", "without `order by`"),
        ("select distinct on (a) a, b from t", "`distinct on`"),
        ("select a, sum(b) as c from t group by all", "`group by all`"),
        ("select list(a) as c from t", "array_agg() is not portable"),
        ("select a from t qualify row_number() over (order by a) = 1", "`qualify`"),
        ("select date_diff('day', a, b) as c from t", "datediff() is not portable"),
        ("select now() as a", "now() is not portable"),
        ("select unheard_of(a) as b from t", "unheard_of() is not portable"),
        ("select a from t using sample 10%", "sample"),
        ("select cast(a as varchar) as b from t", "`varchar` needs a length"),
        ("select a from t {{ where }}", "Jinja"),
    ],
)
def test_what_engines_read_differently_is_refused_with_a_remedy(sql: str, finding: str) -> None:
    found = [*lint_text(sql), *lint_model(sql, frozenset({"safe_ratio"}))]
    assert any(finding in item for item in found), found


@pytest.mark.parametrize(
    "sql",
    [
        "select lag(a) over w as b from t window w as (partition by c order by d)",
        "select count(*) filter (where a) as b, percentile_cont(0.5) within group (order by c) as d from t",
        "select case when a then 1 end as b, cast(c as string) as d, safe_ratio(e, f) as g from t",
    ],
)
def test_standard_sql_and_prelude_functions_pass(sql: str) -> None:
    assert [*lint_text(sql), *lint_model(sql, frozenset({"safe_ratio"}))] == []


def test_a_function_that_one_prelude_lacks_is_found(tmp_path: Path) -> None:
    (tmp_path / "duckdb.sql").write_text("create or replace macro f(a, b) as a + b;\n")
    (tmp_path / "spark.sql").write_text("create or replace temporary function g(a int) returns int return a;\n")
    assert [item.split(":")[0] for item in lint_preludes(tmp_path)] == ["f", "g"]

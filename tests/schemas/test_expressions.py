"""Expressions that users write: what is refused and where, and that what is allowed runs in DuckDB as written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import pytest

from schemas.errors import ConfigurationError
from schemas.expressions import MAPPING_FUNCTIONS, SCALAR_FUNCTIONS, check_expression
from schemas.settings import PROJECT_DIR

WHERE = "j.yml:3 (exclude: bots)"
ROW = {
    "source": "'a b'",
    "amount": "1.50::decimal(18, 2)",
    "occurred_at": "timestamp '2024-03-01 12:34:56.5'",
    "properties": """'{"a": 1, "b": {"c": "x"}}'""",
    "nps_score": "4",
    "campaign": "null::varchar",
}


def checked(sql: object) -> str:
    return check_expression(sql, columns=ROW, where=WHERE)


@pytest.fixture(scope="module")
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        con.execute("set timezone = 'UTC'")
        con.execute(f"create table t as select {', '.join(f'{sql} as {name}' for name, sql in ROW.items())}")
        yield con


ATTACKS = {
    "files": """
        read_csv('/etc/passwd') | "read_text"('/etc/passwd') | READ_BLOB('x') | glob('/etc/*') | query('select 1')
        | query_table('t') | json_execute_serialized_sql('x') | parquet_metadata('x') | sniff_csv('x')
        | read_ndjson('x') | source in (from '/etc/passwd') | source in (select content from read_text('x'))
        | exists (from 'x.csv')""",
    "environment": """
        getenv('HOME') | "getenv"('HOME') | GetEnv('HOME') | system.main.getenv('HOME') | main.getenv('HOME')
        | "system"."main"."getenv"('HOME') | 'HOME'.getenv() | source.getenv() | getenv | getvariable('x')
        | current_setting('home_directory') | duckdb_settings() | pragma_version() | version()
        | current_database() | current_schema() | current_user | session_user | user | current_catalog
        | current_query() | txid_current() | sql_auto_complete('sel') | @x | @@x | variable('x')""",
    "clock and chance": """
        now() | "now"() | current_timestamp | current_timestamp(3) | current_date | current_time | localtimestamp
        | localtime | today() | get_current_timestamp() | transaction_timestamp() | age(occurred_at) | random()
        | "random"() | rand(1) | uuid() | gen_random_uuid() | uuidv7() | setseed(0.5) | nextval('s')
        | currval('s') | sleep_ms(1)""",
    "hidden in an allowed one": """
        lower(getenv('x')) | case when true then getenv('x') end | case getenv('x') when 'a' then 1 end
        | getenv('x')::varchar | try_cast(now() as date) | source || getenv('x') | -random()
        | interval (random()) day | [1, 2][random()] | [1, 2][1:random()] | source in (getenv('x'))
        | source between getenv('x') and 'b' | source like getenv('x') | source is not distinct from now()
        | coalesce(source, read_text('/x')) | properties ->> getenv('x') | occurred_at at time zone getenv('TZ')
        | extract(epoch from now()) | date_trunc('day', now()) | strftime(now(), '%Y')
        | position(getenv('x') in source) | {'a': getenv('x')} | map {'a': 1} | struct_pack(a := getenv('x'))
        | list_value(now()) | source ilike any(array[getenv('x')])""",
    "lambdas and lists": """
        lambda x: x | list_transform([1], lambda x: x) | list_filter([1], lambda x: getenv('x') = 'a')
        | list_filter([1], x -> x > 1) | [x for x in [1, 2]] | unnest([1, 2]) | generate_series(1, 3) | range(3)""",
    "other rows": """
        (select 1) | exists (select 1) | source in (select source from t) | source = any(select source from t)
        | array(select 1) | (from t) | (table t) | (values (1)) | count(*) | sum(amount) | list(source)
        | array_agg(source) | sum(amount) filter (where true) | sum(amount) over () | row_number() over ()
        | lower(source) over () | lower(source) filter (where true) | lower(source order by source)
        | lower(distinct source) | first(source)""",
    "columns by other names": """
        * | t.* | t.source | columns(*) | columns('a.*') | *columns('a') | columns(c -> true) | #1 | rowid | $1
        | ? | :x | $name | to_json(t) | row(source) | exists('x')""",
    "statements": """
        true; drop table t | true; copy t to '/tmp/x' | true /* */; drop table t; /* */ | select 1 | from t
        | from t select 1 | with x as (select 1) select 1 | true union select 2 | true into x | true from t
        | true where true | true limit 1 | true order by 1 | true qualify true | true group by all
        | true using sample 1 | true, false | true as x | distinct true | pragma version | attach 'x'
        | install httpfs | load httpfs | copy t to 'x' | set x = 1 | use x | call x() | create table x (a int)
        | drop table t | export database 'x' | checkpoint | describe t | summarize t | pivot t on x
        | explain select 1 | true and | 'x | (""",
    "look-alikes": """
        gеtenv('x') | lоwer(source) | ＮＯＷ() | ѕource = 'a' | source\u200b = 'a'""",
}  # fmt: skip


@pytest.mark.parametrize(
    "sql", [pytest.param(sql.strip(), id=sql.strip()) for group in ATTACKS.values() for sql in group.split(" | ")]
)
def test_what_could_do_harm_or_change_is_refused_where_it_stands(sql: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        checked(sql)
    assert error.value.where == WHERE and error.value.value == sql and error.value.remedy
    assert str(error.value).startswith(f"{WHERE}: ")


@pytest.mark.parametrize("sql", ["", "  ", None, 1, True, ["true"], "true\n; drop table t", "true -- \n, false"])
def test_what_is_no_single_expression_is_refused(sql: object) -> None:
    with pytest.raises(ConfigurationError, match=r"j\.yml:3 \(exclude: bots\): "):
        checked(sql)


@pytest.mark.parametrize(
    ("sql", "normal"),
    [
        ("true -- drop table t", "TRUE"),
        ("true /* ; drop table t */", "TRUE"),
        ("true;", "TRUE"),
        ("'*/ now() --'", "'*/ now() --'"),
        ("source = 'it''s; now()'", "source = 'it''s; now()'"),
    ],
)
def test_comments_vanish_and_strings_are_only_strings(sql: str, normal: str) -> None:
    assert checked(sql) == normal


# One call and its value per allowed function; where sqlglot knows a spelling DuckDB lacks, only the normal form runs.
VALUES: dict[str, tuple[str, Any]] = {
    "abs": ("abs(-amount)", Decimal("1.50")),
    "and": ("true and false", False),
    "array": ("array[1, 2]", [1, 2]),
    "array_contains": ("array_contains([1], 1)", True),
    "between": ("amount between 1 and 2", True),
    "case": ("case when amount > 1 then 'x' end", "x"),
    "cast": ("cast(amount as integer)", 2),
    "ceil": ("ceil(amount)", 2),
    "ceiling": ("ceiling(amount)", 2),
    "coalesce": ("coalesce(campaign, source)", "a b"),
    "concat": ("concat(source, 1)", "a b1"),
    "concat_ws": ("concat_ws('-', source, 'x')", "a b-x"),
    "contains": ("contains(source, 'b')", True),
    "date_add": ("date_add(occurred_at, interval 1 day)", datetime(2024, 3, 2, 12, 34, 56, 500000)),
    "date_diff": ("date_diff('day', timestamp '2024-02-28', occurred_at)", 2),
    "date_part": ("date_part('hour', occurred_at)", 12),
    "date_sub": ("date_sub('hour', timestamp '2024-03-01', occurred_at)", 12),
    "date_trunc": ("date_trunc('month', occurred_at)", datetime(2024, 3, 1)),
    "datediff": ("datediff('month', occurred_at, timestamp '2024-05-01')", 2),
    "day": ("day(occurred_at)", 1),
    "dayofweek": ("dayofweek(occurred_at)", 5),
    "ends_with": ("ends_with(source, 'b')", True),
    "epoch": ("epoch(occurred_at)", 1709296496.5),
    "epoch_ms": ("epoch_ms(occurred_at)", 1709296496500),
    "extract": ("extract(year from occurred_at)", 2024),
    "floor": ("floor(amount)", 1),
    "greatest": ("greatest(amount, 2)", 2),
    "hour": ("hour(occurred_at)", 12),
    "if": ("if(amount > 1, 'x', 'y')", "x"),
    "ifnull": ("ifnull(campaign, 'x')", "x"),
    "ilike": ("source ilike 'A%'", True),
    "in": ("source in ('a b', 'c')", True),
    "instr": ("instr(source, 'b')", 3),
    "is": ("campaign is null", True),
    "isodow": ("isodow(occurred_at)", 5),
    "json_extract": ("json_extract(properties, '$.a')", "1"),
    "json_extract_scalar": ("json_extract_scalar(properties, '$.b.c')", "x"),
    "json_extract_string": ("json_extract_string(properties, '$.b.c')", "x"),
    "least": ("least(amount, 2)", Decimal("1.50")),
    "left": ("left(source, 1)", "a"),
    "len": ("len(source)", 3),
    "length": ("length(source)", 3),
    "like": ("not source like 'b%'", True),
    "list_contains": ("list_contains([1], 2)", False),
    "list_distinct": ("list_distinct([1, 1])", [1]),
    "list_sort": ("list_sort([2, 1])", [1, 2]),
    "list_value": ("list_value(1, 2)", [1, 2]),
    "lower": ("lower('A')", "a"),
    "lpad": ("lpad(source, 5, '-')", "--a b"),
    "ltrim": ("ltrim(' x ')", "x "),
    "make_date": ("make_date(2024, 1, 2)", date(2024, 1, 2)),
    "make_timestamp": ("make_timestamp(2024, 1, 2, 3, 4, 5.5)", datetime(2024, 1, 2, 3, 4, 5, 500000)),
    "md5": ("md5('a')", "0cc175b9c0f1b6a831c399e269772661"),
    "minute": ("minute(occurred_at)", 34),
    "mod": ("mod(nps_score, 3)", 1),
    "month": ("month(occurred_at)", 3),
    "not": ("not true", False),
    "nullif": ("nullif(source, 'a b')", None),
    "or": ("true or false", True),
    "position": ("position('b' in source)", 3),
    "prefix": ("prefix(source, 'a')", True),
    "quarter": ("quarter(occurred_at)", 1),
    "regexp_extract": ("regexp_extract(source, '(.) (.)', 2)", "b"),
    "regexp_full_match": ("regexp_full_match(source, 'a')", False),
    "regexp_like": ("regexp_like(source, 'a')", True),
    "regexp_matches": ("regexp_matches(source, '^b')", False),
    "regexp_replace": ("regexp_replace('aab', 'a', 'x', 'g')", "xxb"),
    "replace": ("replace(source, ' ', '')", "ab"),
    "reverse": ("reverse(source)", "b a"),
    "right": ("right(source, 1)", "b"),
    "round": ("round(1.256, 2)", Decimal("1.26")),
    "rpad": ("rpad(source, 5, '-')", "a b--"),
    "rtrim": ("rtrim(' x ')", " x"),
    "second": ("second(occurred_at)", 56),
    "sha256": ("left(sha256('a'), 8)", "ca978112"),
    "sign": ("sign(-amount)", -1),
    "split": ("split(source, ' ')", ["a", "b"]),
    "split_part": ("split_part(source, ' ', 2)", "b"),
    "starts_with": ("starts_with(source, 'b')", False),
    "str_split": ("str_split(source, ' ')", ["a", "b"]),
    "strftime": ("strftime(occurred_at, '%Y-%m')", "2024-03"),
    "string_split": ("string_split(source, ' ')", ["a", "b"]),
    "strpos": ("strpos(source, 'b')", 3),
    "strptime": ("strptime('2024-01-02', '%Y-%m-%d')", datetime(2024, 1, 2)),
    "substr": ("substr(source, 3)", "b"),
    "substring": ("substring(source, 1, 2)", "a "),
    "suffix": ("suffix(source, 'b')", True),
    "to_json": ("to_json(source)", '"a b"'),
    "to_timestamp": ("to_timestamp(0) = timestamptz '1970-01-01 00:00:00Z'", True),
    "trim": ("trim(' x ')", "x"),
    "try_cast": ("try_cast(source as integer)", None),
    "try_strptime": ("try_strptime('x', '%Y')", None),
    "upper": ("upper(source)", "A B"),
    "week": ("week(occurred_at)", 9),
    "year": ("year(occurred_at)", 2024),
}
FOREIGN = {"regexp_like", "json_extract_scalar"}


@pytest.mark.parametrize("name", sorted(SCALAR_FUNCTIONS))
def test_every_allowed_function_passes_the_check_and_runs(name: str, con: duckdb.DuckDBPyConnection) -> None:
    sql, value = VALUES[name]
    assert con.execute(f"select {checked(sql)} from t").fetchone() == (value,)
    if name not in FOREIGN:
        assert con.execute(f"select {sql} from t").fetchone() == (value,)


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("2 - (3 - 4)", 3),
        ("not nps_score = 5 or false", True),
        ("1 / 2", 0.5),
        ("7 // 2", 3),
        ("-2 ** 2", 4),
        ("amount::integer::varchar", "2"),
        ("properties ->> 'a'", "1"),
        ("properties -> '$.b' ->> 'c'", "x"),
        ("source || campaign is null", True),
        ("occurred_at + interval 1 month", datetime(2024, 4, 1, 12, 34, 56, 500000)),
        ("occurred_at at time zone 'America/New_York' = timestamptz '2024-03-01 17:34:56.5Z'", True),
        ("campaign is not distinct from null", True),
        ("[1, 2, 3][2:]", [2, 3]),
        ("source similar to 'a.b'", True),
    ],
)
def test_the_normal_form_means_what_was_written(sql: str, value: Any, con: duckdb.DuckDBPyConnection) -> None:
    assert con.execute(f"select {sql} from t").fetchone() == (value,)
    assert con.execute(f"select {checked(sql)} from t").fetchone() == (value,)


def test_only_a_mapping_may_derive_ids() -> None:
    with pytest.raises(ConfigurationError, match="function 'uuid5' is not allowed"):
        checked("uuid5(source, source)")
    assert check_expression("uuid5(source, 'x')", columns=ROW, where=WHERE, functions=MAPPING_FUNCTIONS)


def test_columns_are_known_whatever_their_case() -> None:
    assert checked('SOURCE = "source"') == 'SOURCE = "source"'
    with pytest.raises(ConfigurationError, match="unknown column 'sauce'.*Known columns: amount, campaign"):
        checked("sauce = 1")


def test_the_documentation_lists_exactly_the_allowed_functions() -> None:
    page = (PROJECT_DIR / "docs" / "configuration.md").read_text(encoding="utf-8")
    listed = re.search(r"The functions:\n\n((?:`\w+`[,\s]*)+)", page)
    assert listed is not None
    names = re.findall(r"`(\w+)`", listed[1])
    assert names == sorted(SCALAR_FUNCTIONS)


@pytest.mark.parametrize(
    "sql",
    [
        "lpad(event_type, 2000000000, 'x')",
        "rpad(source, 1001, 'x')",
        "lpad(source, nps_score, 'x')",
        "lpad(source, 999 * 999, 'x')",
        "source = 'a' or rpad(source, 1e9, 'x') = 'b'",
    ],
)
def test_no_expression_asks_for_more_memory_than_a_row_has(sql: str) -> None:
    with pytest.raises(ConfigurationError, match="length of lpad and rpad is a number up to 1000"):
        check_expression(sql, columns=[*ROW, "event_type"], where=WHERE)
    assert checked("lpad(source, 1000, '0')")

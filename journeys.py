"""The command line: every step of the pipeline, runnable without Airflow.

Exit codes: 0 done, 1 failed (a gate, a broken system), 2 wrong use. `--json` where a machine may read the answer.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from schemas.errors import JourneysError, UsageError
from schemas.settings import Settings, ignored_variables, load_settings

app = typer.Typer(
    name="journeys",
    help="Customer-journey analytics: touchpoints from Kafka to journeys in DuckDB and Parquet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """How `journeys query` writes its answer."""

    table = "table"
    csv = "csv"
    json = "json"
    parquet = "parquet"


class FunnelMode(StrEnum):
    """The modes of ClickHouse's windowFunnel, and steps in any order."""

    default = "default"
    strict_order = "strict_order"
    strict_deduplication = "strict_deduplication"
    strict_increase = "strict_increase"
    strict_once = "strict_once"
    unordered = "unordered"


class Counting(StrEnum):
    """What `journeys funnel` counts."""

    unique = "unique"
    total = "total"


class Touches(StrEnum):
    """Whose touchpoints: the customer's own, the brand's, or both."""

    inbound = "inbound"
    outbound = "outbound"
    any = "any"


SourceOption = Annotated[
    str | None, typer.Option("--from", help="kafka://host:port or file:///folder (default: JOURNEYS_SOURCE)")
]
TargetOption = Annotated[
    str | None, typer.Option("--to", help="kafka://host:port or file:///folder (default: JOURNEYS_SOURCE)")
]
AsOfOption = Annotated[
    str | None,
    typer.Option("--as-of", help="Build as of this instant, RFC 3339 (default: the newest inbound touchpoint)"),
]
FullOption = Annotated[bool, typer.Option("--full", help="Load bronze anew; the only way --as-of may move back")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the answer as JSON")]
RunIdOption = Annotated[str | None, typer.Option("--run-id", help="Name of the run; the same name resumes it")]


@app.callback()
def _common(
    context: typer.Context,
    home: Annotated[Path | None, typer.Option(help="Folder of all state (default: JOURNEYS_HOME or ./data)")] = None,
    config: Annotated[Path | None, typer.Option(help="The journey.yml (default: JOURNEYS_CONFIG)")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every step")] = False,
) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # kafka-python reports each connection attempt; our own errors say what matters.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    for name, closest in ignored_variables(os.environ).items():
        hint = f"did you mean {closest}?" if closest else "docs/reference/settings.md lists them all"
        _warn(f"{name} is no setting and is ignored; {hint}")
    context.obj = load_settings(home=home, config=config)


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError("--as-of is not an instant", value=text, remedy="Write it like 2026-03-01T00:00:00Z") from None
    try:
        return instant.astimezone(UTC) if instant.tzinfo else instant.replace(tzinfo=UTC)
    except OverflowError:
        raise UsageError("--as-of lies outside the years 1 to 9999 in UTC", value=text) from None


def _warn(text: str) -> None:
    typer.echo(f"warning: {text}", err=True)


def _print(answer: Any, *, as_json: bool, lines: list[str]) -> None:
    if as_json:
        typer.echo(json.dumps(answer, default=str))
    else:
        for line in lines:
            typer.echo(line)


@app.command()
def produce(
    context: typer.Context,
    to: TargetOption = None,
    customers: Annotated[int, typer.Option(min=1, help="True customers in the scenario")] = 6_000,
    days: Annotated[int, typer.Option(min=1, help="Days the scenario covers")] = 40,
    seed: Annotated[int, typer.Option(help="The same seed gives the same events")] = 1,
    start: Annotated[str, typer.Option(help="First day, YYYY-MM-DD")] = "2026-01-01",
    truth: Annotated[Path | None, typer.Option(help="Write the planted truth to this file")] = None,
    as_json: JsonOption = False,
) -> None:
    """Send a synthetic omnichannel scenario: seeded touchpoints of four channels, faults included."""
    from ingest.progress import show_progress
    from ingest.scenario.run import produce as run_produce

    settings: Settings = context.obj
    try:
        first_day = datetime.fromisoformat(start).replace(tzinfo=UTC)
    except ValueError:
        raise UsageError("--start is not a day", value=start, remedy="Write it like 2026-01-01") from None
    try:
        first_day + timedelta(days=days + 80 * 366)  # one of the scenario's clocks runs 73 years ahead
    except OverflowError:
        raise UsageError("--start and --days lead past the year 9999", value=f"{start}, {days} days") from None
    report = run_produce(
        to or settings.source,
        settings=settings,
        seed=seed,
        start=first_day,
        days=days,
        customers=customers,
        truth_path=truth,
        progress=show_progress,
    )
    _print(vars(report), as_json=as_json, lines=[f"sent {report.record_count:,} records to {to or settings.source}"])


@app.command()
def replay(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(help="CSV, Parquet or NDJSON files")],
    mapping: Annotated[Path, typer.Option(help="Mapping file: how a row becomes a touchpoint")],
    to: TargetOption = None,
    table: Annotated[list[str] | None, typer.Option(help="A further table the mapping joins, as NAME=FILE")] = None,
    allow_rejects: Annotated[bool, typer.Option("--allow-rejects", help="Exit 0 even when rows were rejected")] = False,
    as_json: JsonOption = False,
) -> None:
    """Send any CSV, Parquet or NDJSON file as touchpoints, by a mapping."""
    from ingest.progress import show_progress
    from ingest.replay import replay as run_replay

    settings: Settings = context.obj
    tables = {}
    for entry in table or []:
        name, equals, path = entry.partition("=")
        if not equals:
            raise UsageError("--table needs NAME=FILE", value=entry, remedy="For example --table stores=stores.csv")
        tables[name] = Path(path)
    report = run_replay(files, mapping, to or settings.source, settings=settings, tables=tables, progress=show_progress)
    _print(report.as_json(), as_json=as_json, lines=report.lines())
    if report.rejected_count and not allow_rejects:
        raise typer.Exit(1)


@app.command()
def land(
    context: typer.Context,
    source: SourceOption = None,
    topic: Annotated[list[str] | None, typer.Option(help="Only these topics (default: the four channels)")] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Keep landing until interrupted")] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on after offsets that the broker no longer has, and note the gap")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Land raw records: read to the end offsets (or follow) and write them as Parquet."""
    from ingest.landing import land as run_land
    from ingest.sources import missing_topics
    from schemas.topics import SOURCE_TOPICS

    settings: Settings = context.obj
    source = source or settings.source
    # A topic asked for by name is expected to be there; of the four channels a business may well lack one.
    if topic and (missing := missing_topics(source, topic, settings)):
        if not follow:
            remedy = "Check the name; to wait for a topic that does not exist yet, use --follow"
            raise UsageError("no such topic", where=source, value=", ".join(missing), remedy=remedy)
        _warn(f"{source}: no topic {', '.join(missing)} yet; waiting for it")
    # SIGTERM and Ctrl-C end a following landing in good order; a drain is safe to kill.
    stop = threading.Event()
    if follow:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
    ranges = run_land(
        source,
        settings=settings,
        topics=topic or SOURCE_TOPICS,
        follow=follow,
        stop=stop,
        accept_loss=accept_loss,
    )
    total = sum(part.record_count for part in ranges)
    lines = [
        f"{part.topic} partition {part.partition}: offsets {part.start} to {part.end}, {part.record_count:,} records"
        for part in ranges
    ]
    _print([vars(part) for part in ranges], as_json=as_json, lines=[*lines, f"landed {total:,} records"])


@app.command()
def build(
    context: typer.Context,
    full: FullOption = False,
    as_of: AsOfOption = None,
    run_id: RunIdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build silver and gold from what has landed, and run the gates; publishes nothing."""
    from warehouse.night import build_gold, build_silver, new_run_id

    settings: Settings = context.obj
    run_id = run_id or new_run_id(datetime.now(UTC))
    results = [
        build_silver(settings, run_id=run_id, data_as_of=_instant(as_of), full=full),
        build_gold(settings, run_id=run_id),
    ]
    _print_results(results, as_json=as_json)


@app.command()
def check(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show the last build's data-quality checks; exit 1 when one of severity fail did not hold."""
    from warehouse.gates import latest_checks

    settings: Settings = context.obj
    checks = latest_checks(settings)
    if as_json:
        typer.echo(json.dumps(checks, default=str))
    else:
        # What may be long stands last.
        _print_table("Data quality", checks, ("passed", "severity", "table_name", "check_name", "observed", "expected"))
    if any(not row["passed"] and row["severity"] == "fail" for row in checks):
        raise typer.Exit(1)


@app.command()
def publish(
    context: typer.Context,
    root: Annotated[
        Path | None, typer.Option(help="Absolute path under which readers see the publications, if another")
    ] = None,
    run_id: RunIdOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish the last build: Parquet and a read-only DuckDB file, swapped in atomically."""
    from warehouse.night import new_run_id, publish_run

    settings: Settings = context.obj
    result = publish_run(settings, run_id=run_id or new_run_id(datetime.now(UTC)), root=root)
    _print_results([result], as_json=as_json)


@app.command()
def night(
    context: typer.Context,
    source: SourceOption = None,
    as_of: AsOfOption = None,
    full: FullOption = False,
    run_id: RunIdOption = None,
    as_json: JsonOption = False,
) -> None:
    """One whole night without Airflow: land, silver, gold, publish."""
    from dags import steps
    from schemas.topics import SOURCE_TOPICS
    from warehouse.night import new_run_id

    settings: Settings = context.obj
    data_as_of = _instant(as_of)
    run_id = run_id or new_run_id(datetime.now(UTC))
    source = source or settings.source
    landed = steps.land(SOURCE_TOPICS, source, settings)
    results = [
        steps.silver(
            settings,
            run_id=run_id,
            source=source,
            data_as_of=data_as_of,
            full=full,
            landing_problem_count=len(steps.problems([landed])),
        ),
        steps.gold(settings, run_id=run_id),
        steps.publish(settings, run_id=run_id),
    ]
    lines = [f"landed {landed['record_count']:,} records", *(_line(result) for result in results)]
    _print({"landed": landed, "steps": results}, as_json=as_json, lines=lines)
    steps.confirm_landing([landed])


def _line(result: dict[str, Any]) -> str:
    if result["is_skipped"]:
        return f"{result['step']}: done already"
    counts = result.get("row_counts")
    detail = ", ".join(f"{table} {count:,}" for table, count in counts.items()) if counts else result.get("path", "")
    return f"{result['step']}: as of {result['data_as_of']}: {detail}"


def _print_results(results: list[Any], *, as_json: bool) -> None:
    answers = [result.as_json() for result in results]
    _print(answers, as_json=as_json, lines=[_line(answer) for answer in answers])


@app.command()
def query(
    context: typer.Context,
    sql: Annotated[str, typer.Argument(help="One SELECT over the published tables")],
    output: Annotated[Format, typer.Option("--format", help="table, csv, json or parquet")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="Write to this file (needed for parquet)")] = None,
) -> None:
    """Ask the published tables in SQL."""
    from warehouse.query import query as run_query

    run_query(context.obj, sql, format=output.value, out=out)


@app.command()
def explain(
    table: Annotated[str, typer.Argument(help="A silver, gold or intermediate table")],
    as_json: JsonOption = False,
    code: Annotated[bool, typer.Option("--code/--no-code", help="Show the SQL, or the code's own words")] = True,
) -> None:
    """What a table means: definition, grain, columns, checks, the tables it rests on, and its SQL."""
    from warehouse import explain as explaining

    explanation = explaining.explain(table)
    if as_json:
        typer.echo(json.dumps(explanation.as_json()))
        return
    typer.echo("\n".join(explaining.head(explanation)) + "\n")
    _print_table("Columns", explanation.columns, ("name", "type", "unit", "meaning"))
    typer.echo()
    _print_table("Checks", explanation.checks, ("name", "severity", "expected"))
    if code:
        typer.echo("\n" + explaining.body(explanation))


@app.command()
def funnel(
    context: typer.Context,
    step: Annotated[
        list[str],
        typer.Option(help="A step, in order: an event type, custom:NAME, or an SQL condition, as NAME: CONDITION"),
    ],
    within: Annotated[
        str | None, typer.Option(help="From the first step to the last, like '7 days' (default: conversion_window)")
    ] = None,
    mode: Annotated[FunnelMode, typer.Option(help="What may lie between the steps")] = FunnelMode.default,
    counting: Annotated[
        Counting, typer.Option(help="unique customers, or the total of their attempts")
    ] = Counting.unique,
    hold: Annotated[str | None, typer.Option(help="All steps have the same value of this, like product_id")] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Not between the steps: an event type or an SQL condition")
    ] = None,
    exclude_after: Annotated[int, typer.Option(help="Exclude only after this step")] = 1,
    exclude_before: Annotated[
        int | None, typer.Option(help="Exclude only before this step (default: the last)")
    ] = None,
    breakdown: Annotated[str | None, typer.Option(help="A row per value of this, like channel or medium")] = None,
    breakdown_at: Annotated[
        str, typer.Option(help="Whose value: first_touch, last_touch (the last step reached), step_1, step_2, …")
    ] = "first_touch",
    since: Annotated[
        str | None, typer.Option(help="Nothing before this day or time of the reporting time zone")
    ] = None,
    until: Annotated[str | None, typer.Option(help="First steps before this day or time only")] = None,
    touches: Annotated[
        Touches, typer.Option(help="The customer's own touchpoints, the brand's, or any")
    ] = Touches.inbound,
    attempts: Annotated[bool, typer.Option("--attempts", help="List who came how far, and when")] = False,
    show_sql: Annotated[bool, typer.Option("--sql", help="Print the SQL for any DuckDB client; run nothing")] = False,
    output: Annotated[Format, typer.Option("--format", help="table, csv, json or parquet")] = Format.table,
    out: Annotated[Path | None, typer.Option(help="Write to this file (needed for parquet)")] = None,
) -> None:
    """How many customers come through steps in order, within a window, and how soon.

    docs/funnels.md explains every option with examples.
    """
    from warehouse.funnel import Funnel
    from warehouse.query import query as run_query

    asked = Funnel(
        steps=step,
        within=within,
        mode=mode.value,
        counting=counting.value,
        hold=hold,
        exclude=exclude or (),
        exclude_after=exclude_after,
        exclude_before=exclude_before,
        breakdown=breakdown,
        breakdown_at=breakdown_at,
        since=since,
        until=until,
        touches=touches.value,
    )
    macros = asked.macros()
    if show_sql:
        typer.echo("\n".join([f"{text.rstrip()};\n" for text in macros] + [f"{asked.select(attempts=attempts)};"]))
        return
    sql = asked.select(asked.shown_columns() if output is Format.table and not attempts else "*", attempts=attempts)
    run_query(context.obj, sql, format=output.value, out=out, macros=macros)


@app.command()
def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """What has landed, what was built, what is published."""
    from warehouse.status import status as read_status

    answer = read_status(context.obj)
    if as_json:
        typer.echo(json.dumps(answer, default=str))
        return
    _print_table("Landed", answer["landed"], ("topic", "partition", "landed_to", "file_count"))
    typer.echo()
    _print_table("Steps", answer["steps"], ("step", "run_id", "data_as_of", "finished_at", "seconds"))
    published = answer["published"]
    if published is None:
        typer.echo("\npublished: nothing yet; run `journeys night` or `make demo`")
        return
    typer.echo(f"\npublished: {published['path']}\nrun {published['run_id']}, data as of {published['data_as_of']}")
    typer.echo(", ".join(f"{table} {count:,}" for table, count in published["tables"].items()))


@app.command(name="replay-rejected")
def replay_rejected(context: typer.Context, as_json: JsonOption = False) -> None:
    """Judge the quarantine again, after a fix of the contract or of journey.yml; accepted records join bronze."""
    from warehouse.night import replay_rejected as run_replay

    accepted, remaining = run_replay(context.obj)
    _print(
        {"accepted_count": accepted, "remaining_count": remaining},
        as_json=as_json,
        lines=[f"{accepted:,} records accepted, {remaining:,} still in quarantine; `journeys build` takes them in"],
    )


@app.command()
def docs(
    check_only: Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 when a page is stale")] = False,
) -> None:
    """Write the reference pages (docs/reference) from the code: commands, settings, events, tables."""
    from warehouse import documentation

    extra = {"commands.md": commands_page()}
    if check_only:
        found = documentation.stale(extra=extra)
        for path in found:
            typer.echo(f"{path}: stale; run `make docs`", err=True)
        raise typer.Exit(1 if found else 0)
    for path in documentation.write(extra=extra):
        typer.echo(f"wrote {path}")


def commands_page() -> str:
    """Every command's help, as the terminal shows it."""
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="journeys", terminal_width=100)
    pages = [("journeys", group.get_help(context))]
    for name in group.list_commands(context):  # type: ignore[attr-defined]
        command = group.get_command(context, name)  # type: ignore[attr-defined]
        inner = typer.Context(command, info_name=name, parent=context, terminal_width=100)
        pages.append((f"journeys {name}", command.get_help(inner)))
    return "# Commands\n" + "".join(f"\n## {name}\n\n```text\n{text}\n```\n" for name, text in pages)


def _print_table(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    from warehouse.query import print_table

    print_table(columns, [[row[column] for column in columns] for row in rows], sys.stdout, title=title)


def main() -> None:
    """Run the command line; our errors become one clear line and an exit code."""
    try:
        app(prog_name="journeys")
    except JourneysError as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder that is not ours
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()

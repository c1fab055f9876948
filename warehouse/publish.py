"""Publishing: one Parquet folder per table and a read-only DuckDB file, swapped in atomically.

    published/<run>/<table>/<table>.parquet         touchpoints: touchpoints/month=YYYY-MM/touchpoints.parquet
    published/<run>/manifest.json                   columns, row counts, files with their SHA-256
    published/<run>/journeys.duckdb                 the tables as views on this folder
    published/current -> <run>

A publication is whole and synced before `current` moves to it: a reader that resolves `current` once sees one whole
run. Until then its folder holds the file `.unfinished`; the next night removes what a killed one left, and nothing
that is not ours. A folder is never written again; publishing a run anew makes `<run>.2`.
Files that did not change are hard links to the previous publication's.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from schemas.errors import GateFailedError, PublishError, UsageError
from schemas.settings import Settings
from transforms.event_sql import quoted
from warehouse.models import LINEAGE_COLUMNS, MADE_BY_CODE, Model, TableDescription, load_description, load_silver
from warehouse.views import create_views

logger = logging.getLogger(__name__)

CURRENT = "current"
DATABASE, MANIFEST = "journeys.duckdb", "manifest.json"
UNFINISHED = ".unfinished"
PRIVATE_TABLES = ("quarantine", "identity_map")
"""They stay in the warehouse: raw records and identifiers."""

TYPED_PROPERTIES = (
    "page_path", "product_id", "store_id", "order_id", "ticket_id", "amount", "currency", "csat_rating", "nps_score",
    "author", "is_machine_open", "coupon_code", "error_code",
)  # fmt: skip


@dataclass
class Publication:
    """What is being written, and what the manifest will say of it."""

    folder: Path
    previous: Path | None
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)


def publish(
    con: duckdb.DuckDBPyConnection,
    settings: Settings,
    models: Sequence[Model],
    *,
    sql_dir: Path,
    run_id: str,
    definition_hash: str,
    data_as_of: datetime,
    root: Path | None = None,
) -> Path:
    """Write a publication of silver and gold and make it current; answers its folder.

    `root`: the path under which readers see the publications, where it is not `settings.published_dir`. Raises
    PublishError, UsageError for a root that is relative or a folder among private files, and GateFailedError rather
    than replacing touchpoints by none; until the last step readers keep the previous publication, whatever happens.
    """
    started = time.monotonic()
    published = settings.published_dir
    if root is not None and not root.is_absolute():
        raise UsageError(
            "the root that readers see must be an absolute path",
            where="--root",
            value=str(root),
            remedy="A view keeps it, whatever folder its reader stands in",
        )
    _require_apart(settings)
    with _explained(published):
        _require_touchpoints(con, published, data_as_of)
        _make_folder(published, settings)
        _remove_leftovers(published)
        name = _free_name(published, run_id)
        work = Publication(published / f".{name}.tmp", _current(published))
        work.folder.mkdir(exist_ok=True)  # empty, where a night was killed right here
        (work.folder / UNFINISHED).touch()
    described = {model.name: model.description for model in [*load_silver(sql_dir), *models] if model.is_published}
    described |= {table: load_description(sql_dir / "gold" / f"{table}.yml") for table in MADE_BY_CODE}
    try:
        with _explained(published / name):
            for table, description in described.items():
                if table not in PRIVATE_TABLES:
                    _write_table(con, work, table, description, lineage=table not in _silver_names(sql_dir))
            work.folder = work.folder.rename(published / name)
            _write_database(work, root / name if root else None)
            _write_manifest(work, run_id=run_id, definition_hash=definition_hash, data_as_of=data_as_of)
            _grant(work.folder, settings)
            (work.folder / UNFINISHED).unlink()
            _sync_tree(work.folder)
            _swap(published, name)
    except BaseException:
        if _current(published) != work.folder.resolve():
            shutil.rmtree(work.folder, ignore_errors=True)
        raise
    with _explained(published):
        _prune(published, settings.publish_keep)
    logger.info("published %s, %d tables, %.2f s", published / name, len(work.tables), time.monotonic() - started)
    return published / name


def _require_apart(settings: Settings) -> None:
    """What is published may be read by others, and `journeys query` by all of it: nothing private may lie in it."""
    published, home = settings.published_dir.resolve(), settings.home.resolve()
    private = (settings.landing_dir, home / "quality", home / ".duckdb_tmp")
    if home.is_relative_to(published) or any(published.is_relative_to(folder.resolve()) for folder in private):
        raise UsageError(
            "publications would lie among private files",
            where="JOURNEYS_PUBLISHED",
            value=str(settings.published_dir),
            remedy="Give a folder that neither holds JOURNEYS_HOME nor lies in its landing folder",
        )


def _require_touchpoints(con: duckdb.DuckDBPyConnection, published: Path, data_as_of: datetime) -> None:
    """Nothing at all may replace something only where somebody asks for it: it is a wrong instant more often."""
    if con.execute("select 1 from touchpoints limit 1").fetchone() or not (published / CURRENT).exists():
        return
    before = read_manifest(published / CURRENT)["tables"]["touchpoints"]["row_count"]
    if before:
        raise GateFailedError(
            f"the build holds no touchpoint, the current publication {before:,}",
            where=str(published / CURRENT),
            value=f"data as of {data_as_of.astimezone(UTC).isoformat()}",
            remedy="Build as of a later instant; if readers shall see empty tables, delete this link and publish again",
        )


@contextmanager
def _explained(where: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, duckdb.Error) as error:
        raise PublishError(
            f"the publication could not be written: {str(error).splitlines()[0]}",
            where=str(where),
            remedy="Free the disk or correct the permissions and publish again; readers keep the last publication",
        ) from error


def _silver_names(sql_dir: Path) -> set[str]:
    return {path.stem for path in (sql_dir / "silver").glob("*.yml")}


def _free_name(published: Path, run_id: str) -> str:
    name, number = run_id, 1
    while (published / name).exists():
        number += 1
        name = f"{run_id}.{number}"
    return name


def _current(published: Path) -> Path | None:
    link = published / CURRENT
    return link.resolve() if link.exists() else None


def _remove_leftovers(published: Path) -> None:
    (published / f".{CURRENT}.tmp").unlink(missing_ok=True)
    for path in published.iterdir():
        is_leftover = path.is_dir() and not path.is_symlink() and (path / UNFINISHED).exists()
        if is_leftover and path.resolve() != _current(published):
            shutil.rmtree(path)


def _select_list(table: str, columns: Sequence[tuple[str, str]]) -> str:
    """Columns as published: UTC times with their zone, ids and lists as text, only typed properties."""
    parts = []
    for name, kind in columns:
        if table == "touchpoints" and name == "properties":
            typed = ", ".join(f"'{item}', {item}" for item in TYPED_PROPERTIES)
            parts.append(f"json_merge_patch('{{}}', json_object({typed}))::varchar as properties")
        elif kind == "TIMESTAMP":
            parts.append(f'"{name}"::timestamptz as "{name}"')
        elif kind == "UUID":
            parts.append(f'"{name}"::varchar as "{name}"')
        elif kind.endswith("[]"):
            parts.append(f'array_to_string("{name}", \',\') as "{name}"')
        elif kind == "HUGEINT":
            parts.append(f'"{name}"::bigint as "{name}"')
        else:
            parts.append(f'"{name}"')
    return ", ".join(parts)


def _write_table(
    con: duckdb.DuckDBPyConnection, work: Publication, table: str, description: TableDescription, *, lineage: bool
) -> None:
    existing = {row[0]: row[1] for row in con.execute(f'describe "{table}"').fetchall()}
    names = [column.name for column in description.columns] + (list(LINEAGE_COLUMNS) if lineage else [])
    select = _select_list(table, [(name, existing[name]) for name in names])
    order = ", ".join(f'"{name}"' for name in description.grain)
    folder = work.folder / table
    folder.mkdir()
    files = []
    for part, condition in _parts(con, table):
        path = folder / part / f"{table}.parquet"
        path.parent.mkdir(exist_ok=True)
        _copy(con, f'select {select} from "{table}" where {condition} order by {order}', path, description)
        files.append(_describe_file(work, path))
    columns = con.execute(f'describe select {select} from "{table}"').fetchall()
    work.tables[table] = {
        "columns": [{"name": row[0], "type": row[1]} for row in columns],
        "row_count": sum(item["rows"] for item in files),
        "files": files,
    }


def _parts(con: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
    """(sub-folder, condition) of each file: touchpoints by month, everything else in one."""
    if table != "touchpoints":
        return [("", "true")]
    months = con.execute(
        "select distinct date_trunc('month', occurred_at)::date as month from touchpoints order by month"
    ).fetchall()
    parts = [
        (
            f"month={month:%Y-%m}",
            f"occurred_at >= date '{month}' and occurred_at < date '{month}' + interval 1 month",
        )
        for (month,) in months
    ]
    return parts or [("month=1970-01", "false")]


def _copy(con: duckdb.DuckDBPyConnection, select: str, path: Path, description: TableDescription) -> None:
    comments = {column.name: column.meaning for column in description.columns}
    metadata = json.dumps({"description": " ".join(description.description.split()), "columns": comments})
    con.execute("set preserve_insertion_order = true")
    try:
        con.execute(
            f"copy ({select}) to {quoted(str(path))} (format parquet, compression zstd, row_group_size 122880, "
            f"kv_metadata {{journeys: {quoted(metadata)}}})"
        )
    finally:
        con.execute("set preserve_insertion_order = false")


def _describe_file(work: Publication, path: Path) -> dict[str, Any]:
    import pyarrow.parquet as pq

    digest = _sha256(path)
    relative = path.relative_to(work.folder)
    if work.previous is not None:
        old = work.previous / relative
        same_size = old.exists() and old.stat().st_size == path.stat().st_size
        if same_size and _sha256(old) == digest:
            path.unlink()
            os.link(old, path)
    rows = pq.read_metadata(path).num_rows
    return {"path": str(relative), "bytes": path.stat().st_size, "rows": rows, "sha256": digest}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_manifest(work: Publication, *, run_id: str, definition_hash: str, data_as_of: datetime) -> None:
    manifest = {
        "run_id": run_id,
        "data_as_of": data_as_of.astimezone(UTC).isoformat(),
        "definition_hash": definition_hash,
        "created_at": datetime.now(UTC).isoformat(),
        "tables": work.tables,
    }
    (work.folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a publication says of itself. Raises PublishError where it is not whole."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not {"run_id", "data_as_of", "tables"} <= set(manifest):
            raise ValueError("it lacks run_id, data_as_of or tables")
    except (OSError, ValueError) as error:
        raise PublishError(
            f"the publication cannot be read: {error}",
            where=str(folder / MANIFEST),
            remedy="Delete its folder and run `journeys publish` to make it anew",
        ) from None
    return manifest


def _write_database(work: Publication, seen_as: Path | None) -> None:
    """`journeys.duckdb`: a view per table on this run's own Parquet, by absolute path, with comments."""
    with duckdb.connect(str(work.folder / DATABASE)) as con:
        create_views(con, work.folder, work.tables, seen_as=seen_as)


def _make_folder(folder: Path, settings: Settings) -> None:
    try:
        _make_parents(folder.parent)
        is_new = not folder.exists()
        folder.mkdir(exist_ok=True)
        if is_new or _is_granted_by_us(folder, settings):
            _grant_one(folder, settings)
    except (OSError, LookupError) as error:
        raise PublishError(
            f"the folder cannot be made: {error}",
            where=str(folder),
            remedy="Correct the permissions or JOURNEYS_PUBLISH_GROUP",
        ) from error


def _is_granted_by_us(folder: Path, settings: Settings) -> bool:
    """Whether an existing folder is ours to open or close; a folder that was there before keeps its mode."""
    if settings.published is None:
        return True
    found = folder.stat()
    has_our_mode = found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) in (0o755, 0o750)
    return has_our_mode and (folder / CURRENT).is_symlink()


def _make_parents(folder: Path) -> None:
    """Folders on the way, which readers must pass: a process that has the warehouse open makes private ones."""
    if not folder.exists():
        _make_parents(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)


def _grant(folder: Path, settings: Settings) -> None:
    for path in [folder, *folder.rglob("*")]:
        _grant_one(path, settings)


def _grant_one(path: Path, settings: Settings) -> None:
    """Readable by the configured group, else by everybody on the machine; writable by the owner alone."""
    if settings.publish_group:
        shutil.chown(path, group=settings.publish_group)
        path.chmod(0o750 if path.is_dir() else 0o640)
    else:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _swap(published: Path, name: str) -> None:
    link = published / f".{CURRENT}.tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(published / CURRENT)
    descriptor = os.open(published, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_publication(path: Path) -> bool:
    return not path.is_symlink() and all((path / name).exists() for name in (MANIFEST, DATABASE))


def _prune(published: Path, keep: int) -> None:
    """Remove the oldest publications beyond `keep`; never the current one."""
    current = _current(published)
    folders = [path for path in published.iterdir() if _is_publication(path)]
    newest_first = sorted(folders, key=lambda path: (path / MANIFEST).stat().st_mtime_ns, reverse=True)
    for path in newest_first[keep:]:
        if path.resolve() != current:
            shutil.rmtree(path)

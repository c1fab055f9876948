"""A file's place says what it may touch: dependencies between the rooms point one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("schemas", "ingest", "transforms", "warehouse", "dags")
ALLOWED = {
    "schemas": {"schemas"},
    "ingest": {"ingest", "schemas"},
    "transforms": {"transforms", "schemas"},
    "warehouse": {"warehouse", "transforms", "schemas"},
    "dags": {"dags", "warehouse", "transforms", "ingest", "schemas"},
}
SQL_READERS = {"warehouse"}


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported_rooms(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[0] for name in names} & {*ROOMS, "journeys"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_lies_before_it(room: str) -> None:
    assert modules(room), f"{room}/ holds no module"
    wrong = {
        str(path.relative_to(ROOT)): sorted(imported_rooms(path) - ALLOWED[room])
        for path in modules(room)
        if imported_rooms(path) - ALLOWED[room]
    }
    assert not wrong, f"{wrong}: move the code to the room that may hold it, or pass the value in"


@pytest.mark.parametrize("room", ROOMS)
def test_only_the_warehouse_reads_sql_models(room: str) -> None:
    readers = [
        path.name
        for path in modules(room)
        if room not in SQL_READERS
        and any(
            isinstance(node, ast.Constant) and node.value == "sql" for node in ast.walk(ast.parse(path.read_text()))
        )
    ]
    assert not readers, f"{room}: {readers} names the folder sql/, which belongs to warehouse/"


@pytest.mark.parametrize("room", ["schemas", "transforms", "warehouse"])
def test_heavy_services_are_not_imported_at_module_level(room: str) -> None:
    heavy = {"airflow", "great_expectations", "kafka"}
    for path in modules(room):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & heavy, f"{path.name}: import it inside the function"


@pytest.mark.parametrize("lock", ["requirements.lock", "tests/oracles/requirements.lock"])
def test_a_lock_pins_by_hash_and_names_no_host(lock: str) -> None:
    lines = (ROOT / lock).read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if "://" in line or line.startswith("--index")]
    pins = [line for line in lines if line and line[0].isalpha()]
    assert pins and all("==" in pin for pin in pins)
    assert sum("--hash=sha256:" in line for line in lines) >= len(pins)

"""Documentation that cannot rot: whatever users can name is in the docs, and what the docs name is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
import yaml

import journeys
from schemas.config import Config
from schemas.contracts import ENVELOPE_FIELDS, PROPERTY_FIELDS
from schemas.events import EVENT_TYPES
from schemas.settings import PROJECT_DIR, Settings
from warehouse import documentation
from warehouse.models import HELPER_TABLES, load_models, load_silver

DOCS = PROJECT_DIR / "docs"
REFERENCE = DOCS / "reference"
PAGES = [PROJECT_DIR / "README.md", *sorted(DOCS.rglob("*.md")), PROJECT_DIR / "sql" / "README.md"]
GROUP = typer.main.get_command(journeys.app)
COMMANDS = sorted(GROUP.list_commands(typer.Context(GROUP)))  # type: ignore[attr-defined]
TARGETS = set(re.findall(r"^([a-z-]+):", (PROJECT_DIR / "Makefile").read_text(), re.MULTILINE))


def text(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_no_reference_page_is_stale() -> None:
    stale = documentation.stale(extra={"commands.md": journeys.commands_page()})
    assert stale == [], "run `make docs`"


def test_a_stale_or_missing_page_is_found_and_written_anew(tmp_path: Path) -> None:
    extra = {"commands.md": "# Commands\n"}
    written = documentation.write(tmp_path, extra)
    assert sorted(path.name for path in written) == ["commands.md", "events.md", "settings.md", "tables.md"]
    assert documentation.stale(tmp_path, extra) == documentation.write(tmp_path, extra) == []
    (tmp_path / "events.md").write_text("old")
    (tmp_path / "tables.md").unlink()
    assert {path.name for path in documentation.stale(tmp_path, extra)} == {"events.md", "tables.md"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_is_documented_and_explained(command: str) -> None:
    section = text("commands.md").partition(f"\n## journeys {command}\n")[2].partition("\n## ")[0]
    assert section, f"docs/reference/commands.md has no section for {command}"
    made = GROUP.get_command(typer.Context(GROUP), command)  # type: ignore[attr-defined]
    assert made.help
    for parameter in made.params:
        assert max(parameter.opts, key=len) in section or parameter.name.upper() in section.upper()
        assert getattr(parameter, "help", None), f"{command}: {parameter.name} explains nothing"


def test_every_setting_event_type_field_table_and_column_is_documented() -> None:
    for name, field in Settings.model_fields.items():
        assert f"`JOURNEYS_{name.upper()}`" in text("settings.md")
        assert field.description, f"setting {name} explains nothing"
    for name in [*EVENT_TYPES, *ENVELOPE_FIELDS, *PROPERTY_FIELDS]:
        assert f"| `{name}` |" in text("events.md")
    tables = text("tables.md")
    models = [model for model in load_models(PROJECT_DIR / "sql") if model.is_published]
    for model in [*load_silver(PROJECT_DIR / "sql"), *models]:
        section = tables.partition(f"\n### {model.name}\n")[2].partition("\n### ")[0]
        assert section, f"docs/reference/tables.md has no section for {model.name}"
        for column in model.description.columns:
            assert f"| `{column.name}` | {column.type} |" in section
            assert column.meaning, f"{model.name}.{column.name} means nothing"
    assert "\n### data_quality\n" in tables


def test_every_key_of_journey_yml_is_explained() -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    shipped = yaml.safe_load((PROJECT_DIR / "journey.yml").read_text(encoding="utf-8"))
    assert set(shipped) == set(Config.model_fields)
    assert [key for key in Config.model_fields if f"`{key}`" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT_DIR)))
def test_what_a_page_links_to_and_names_is_there(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", content, flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page}: {link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{page}: {link}: no such heading"
    # A command stands at the start of a line or of a code span, perhaps by path or after variables; else it is prose.
    lines = [line for block in re.findall(r"```.*?```", content, re.DOTALL) for line in block.splitlines()[1:]]
    lines += re.findall(r"`([^`\n]+)`", prose)
    for line in lines:
        if called := re.match(r"(?:\$ )?(?:\S+=\S+ )*(?:\.venv/bin/)?journeys ([a-z][a-z-]*)", line):
            assert called[1] in COMMANDS, f"{page}: there is no `journeys {called[1]}`"
        if called := re.match(r"(?:\$ )?make ([a-z][a-z-]*)", line):
            assert called[1] in TARGETS, f"{page}: there is no `make {called[1]}`"
    for variable in re.findall(r"\bJOURNEYS_[A-Z_]+\b(?!\*)", "\n".join(lines)):
        known = variable.removeprefix("JOURNEYS_").lower()
        assert known in Settings.model_fields or variable in UNSETTLED, f"{page}: there is no {variable}"


UNSETTLED = {"JOURNEYS_REQUIRE_BROKER", "JOURNEYS_FIGURES"}
"""Variables of the tests, not of an installation."""


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_make_help_names_every_target() -> None:
    makefile = (PROJECT_DIR / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[0].split())
    explained = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert phony == explained


def test_helper_tables_are_told_to_whoever_writes_a_model() -> None:
    page = (PROJECT_DIR / "sql" / "README.md").read_text(encoding="utf-8")
    assert [name for name in HELPER_TABLES if name not in page] == []

"""Progress of long sending: a bar where standard error is a terminal, else plain INFO lines for a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")
Tracker = Callable[[Iterator[T], int | None, str], Iterator[T]]
"""Wraps items on their way, given their number (None: not known) and what happens to them."""

LOG_SECONDS = 10.0
_UPDATE_ITEMS = 500


def show_progress(items: Iterator[T], total: int | None, what: str) -> Iterator[T]:
    """Pass the items on and tell how many have gone: the `Tracker` of the command line."""
    return _bar(items, total, what) if sys.stderr.isatty() else _lines(items, total, what)


def no_progress(items: Iterator[T], total: int | None, what: str) -> Iterator[T]:
    """Pass the items on in silence."""
    return items


def _bar(items: Iterator[T], total: int | None, what: str) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task, number = progress.add_task(what, total=total), 0
        for number, item in enumerate(items, 1):
            if number % _UPDATE_ITEMS == 0:
                progress.update(task, completed=number)
            yield item
        progress.update(task, completed=number, total=number)


def _lines(items: Iterator[T], total: int | None, what: str) -> Iterator[T]:
    started_at = said_at = time.monotonic()
    of, number = f" of {total}" if total is not None else "", 0
    for number, item in enumerate(items, 1):
        if number % _UPDATE_ITEMS == 0 and time.monotonic() - said_at >= LOG_SECONDS:
            said_at = time.monotonic()
            logger.info("%s: %d%s", what, number, of)
        yield item
    logger.info("%s: %d%s in %.1f s", what, number, of, time.monotonic() - started_at)

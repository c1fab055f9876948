"""The file of `journeys query --out`: never one that the pipeline keeps, and whole or not touched at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import UsageError
from schemas.settings import Settings


def require_free(settings: Settings, out: Path) -> None:
    """An answer must not overwrite what the pipeline keeps, by whatever link it is reached. Raises UsageError."""
    target, warehouse = out.resolve(), settings.warehouse_path.resolve()
    folders = (settings.published_dir, settings.landing_dir, settings.home / "quality", settings.home / ".duckdb_tmp")
    is_kept = any(target.is_relative_to(folder.resolve()) for folder in folders)
    is_kept |= target.parent == warehouse.parent and target.name.startswith(warehouse.name)  # its .wal too
    if not is_kept and target.is_file() and target.stat().st_nlink > 1:
        kept = [warehouse, *(path for folder in folders for path in folder.rglob("*"))]
        is_kept = any(path.is_file() and path.samefile(target) for path in kept)
    if is_kept:
        raise UsageError(
            "the pipeline keeps its own files there",
            where="--out",
            value=str(out),
            remedy="Give --out a file outside landing, warehouse and publications",
        )


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A file to write beside `out`, which takes its place at the end; after an error `out` is as it was.

    What is no plain file (a pipe, /dev/stdout) is written itself. Raises UsageError where it cannot be written.
    """
    target = out.resolve()  # a link stays one
    try:
        mode = _mode(target)
        if mode is None:
            yield target
            return
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
        os.close(descriptor)
        try:
            yield Path(name)
            Path(name).chmod(mode)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UsageError(
            f"cannot be written: {error.strerror or error}",
            where=str(out),
            remedy="Give --out a file in a folder that exists and is yours",
        ) from None


def _mode(target: Path) -> int | None:
    """The permissions that a file written to `target` has; None for what is no plain file and no free name."""
    if target.exists():
        found = target.stat().st_mode
        if stat.S_ISDIR(found):
            raise IsADirectoryError(0, "it is a folder")
        return stat.S_IMODE(found) if stat.S_ISREG(found) else None
    umask = os.umask(0o077)
    os.umask(umask)
    return 0o666 & ~umask

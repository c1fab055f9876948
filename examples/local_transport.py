"""Where the demo and the examples send their events: a Kafka broker of their own, or the drop folder without one."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

PROJECT_DIR = Path(__file__).resolve().parent.parent


def load_script(relative: str) -> ModuleType:
    """A module that lives outside the packages (deploy/…), loaded from its file."""
    path = PROJECT_DIR / relative
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def open_transport(home: Path) -> Iterator[str]:
    """The URL to send to; says on standard output which transport it is. The broker ends with the block."""
    kafka = load_script("deploy/kafka/broker.py")
    engine = kafka.available_engine()
    if engine is None:
        folder = (home / "drop").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        print(f"Transport: the drop folder {folder} ({kafka.missing_parts()}: no Kafka broker can run here)")
        yield f"file://{folder}"
        return
    print(f"Transport: Apache Kafka ({engine}); starting a broker of our own ...", flush=True)
    with kafka.Broker(home / "broker") as broker:
        print(f"           listening on {broker.bootstrap}", flush=True)
        yield f"kafka://{broker.bootstrap}"

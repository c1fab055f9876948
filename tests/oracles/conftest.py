"""Systems that nobody here wrote: `make test` installs them (tests/oracles/requirements.lock)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from types import ModuleType

import pytest

os.environ["RETENTIONEERING_NO_TRACK"] = "1"  # it reports its use to a host otherwise


@pytest.fixture(scope="session")
def oracle() -> Callable[[str], ModuleType]:
    """`oracle("chdb")` imports a peer; where it is not installed the test skips, and fails under CI."""

    def _import(name: str) -> ModuleType:
        try:
            return importlib.import_module(name)
        except ImportError:
            reason = f"{name} is not installed; `make test` installs it"
            if os.environ.get("CI"):
                pytest.fail(reason)
            pytest.skip(reason)

    return _import

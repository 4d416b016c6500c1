"""Warnings are errors, but for alpaca-py's own import of ``websockets.legacy``: once here, then it is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import alpaca.data.historical
    import alpaca.data.live
    import alpaca.trading.client
    import alpaca.trading.stream  # noqa: F401

from pairs import Pair, run_both


@pytest.fixture
def both(tmp_path: Path) -> Callable[..., Pair]:
    """Runs a run file made of sections in both modes, in a folder of the test's own."""

    def run(**sections: Any) -> Pair:
        return run_both(tmp_path, **sections)

    return run

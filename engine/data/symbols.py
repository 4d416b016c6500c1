"""Symbols that a run file asks for, against those that a source has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from engine.data.files.columns import listed, shown
from engine.errors import ConfigError


def require_symbols(asked: Sequence[str], available: Iterable[str], *, where: str, key: str = "data.symbols") -> None:
    """Check that a source has each symbol that the run file asks for.

    Raises:
        ConfigError: one is not there; names the closest, or what there is.
    """
    there = set(map(str, available))
    for symbol in asked:
        if symbol not in there:
            close = difflib.get_close_matches(symbol.upper(), there, n=3)
            hint = f"did you mean {' or '.join(map(shown, close))}?" if close else f"it has {listed(sorted(there))}"
            raise ConfigError(f"{key}: {where} has no symbol {symbol}; {hint}")

"""Symbols that a run file asks for, against those that a source has."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from engine.errors import ConfigError

_SHOWN = 20


def require_symbols(asked: Sequence[str], available: Iterable[str], *, where: str, key: str = "data.symbols") -> None:
    """Check that a source has each symbol that the run file asks for.

    Raises:
        ConfigError: one is not there; names the closest, or what there is.
    """
    there = sorted(map(str, available))
    for symbol in asked:
        if symbol not in there:
            close = difflib.get_close_matches(symbol.upper(), there, n=3)
            shown = f"{', '.join(there[:_SHOWN]) or 'none'}{' and more' if len(there) > _SHOWN else ''}"
            hint = f"did you mean {' or '.join(close)}?" if close else f"it has {shown}"
            raise ConfigError(f"{key}: {where} has no symbol {symbol}; {hint}")

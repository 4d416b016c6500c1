"""Which column of a file is which: by the run file's mapping, by the vendor's layout, by its usual name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.data.bars import COLUMNS
from engine.data.files.vendors import Layout, tidy
from engine.errors import ConfigError, DataError

EXTRAS = ("adjusted", "dividend", "split")

# Lower-case names by which a column is known; the first that a file has wins among the names of a symbol.
_TIME_NAMES = ("time", "timestamp", "datetime", "date")
SYMBOL_NAMES = ("symbol", "ticker", "name")
_INDEX_NAMES = ("__index_level_0__", "")  # how pandas writes an index without a name
_EXTRA_NAMES: Mapping[str, tuple[str, ...]] = {
    "adjusted": ("adj close", "adj_close", "adjclose", "adjusted_close", "adjusted close"),
    "dividend": ("dividends", "dividend", "dividend_amount", "dividend amount", "divcash"),
    # Not a bare "split", which as often names a part of the data.
    "split": ("stock splits", "stock_splits", "split_coefficient", "split_factor", "splitfactor", "split_ratio"),
}
_MAPPABLE = ("time", "date", *COLUMNS, "symbol", *EXTRAS)


def shown(value: object, longest: int = 40) -> str:
    """A value of a file as an error names it: on one line, and not at any length."""
    text = " ".join(str(value)[: 10 * longest].split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= longest else f"{text[:longest]}..."


def listed(names: Sequence[object], most: int = 8) -> str:
    """Names of a file as an error lists them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(shown(name) for name in names[:most]) + more


def recognised(found: Sequence[str], columns: Mapping[str, str] | None, layout: Layout, path: Path) -> dict[str, int]:
    """Canonical name -> position in the file, for each column that is mapped or known.

    Raises:
        DataError: a column is missing, or several may be it.
        ConfigError: the mapping names something that is not there.
    """
    positions = _mapped(found, columns, path)
    mapped = set(positions.values())
    known: dict[str, list[int]] = {}
    for position, theirs in enumerate(found):
        if position not in mapped:
            known.setdefault(tidy(theirs), []).append(position)

    def take(name: str, aliases: Sequence[str]) -> None:
        candidates = [position for alias in aliases for position in known.get(alias, [])]
        if len(candidates) > 1:
            raise DataError(
                f"{path}: {listed([repr(found[c]) for c in candidates]).replace(', ', ' and ')} may all be the {name}; "
                f"say which in data.columns.{name}"
            )
        if candidates:
            positions[name] = candidates[0]

    for name, theirs in layout.columns.items():
        if name not in positions:
            take(name, (theirs,))
    for name in COLUMNS:
        if name not in positions:
            take(name, (name,))
    if "time" not in positions and "date" in positions:
        positions["time"] = positions.pop("date")
    elif "time" not in positions:
        if set(known) & set(_TIME_NAMES) == {"date", "time"}:
            take("date", ("date",))
            take("time", ("time",))
        else:
            take("time", _TIME_NAMES if set(known) & set(_TIME_NAMES) else _INDEX_NAMES)
    if "time" not in positions:
        raise DataError(
            f"{path}: no column for the time; expected one of {', '.join(_TIME_NAMES)}, found {listed(found)}; "
            "name it in data.columns.time"
        )
    missing = [name for name in COLUMNS if name not in positions]
    if missing:
        raise DataError(
            f"{path}: no column for {', '.join(missing)}; found {listed(found)}; add it, or name it in data.columns"
        )
    if "symbol" not in positions:
        take("symbol", [alias for alias in SYMBOL_NAMES if alias in known][:1])
    for name in EXTRAS:
        if name not in positions:
            take(name, [alias for alias in _EXTRA_NAMES[name] if alias in known][:1])
    return positions


def _mapped(found: Sequence[str], columns: Mapping[str, str] | None, path: Path) -> dict[str, int]:
    positions: dict[str, int] = {}
    for name, theirs in (columns or {}).items():
        if name not in _MAPPABLE:
            raise ConfigError(f"data.columns.{shown(name)}: unknown column; expected one of {', '.join(_MAPPABLE)}")
        if theirs not in found:
            raise ConfigError(
                f"data.columns.{name}: {path.name} has no column {shown(theirs)!r}; it has {listed(found)}"
            )
        if found.count(theirs) > 1:
            raise DataError(f"{path}: {found.count(theirs)} columns are called {shown(theirs)!r}; rename all but one")
        positions[name] = found.index(theirs)
    return positions

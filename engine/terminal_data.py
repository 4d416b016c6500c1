"""What people see of the cache: what a fetch did, and what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from engine.terminal import console, say, warn

if TYPE_CHECKING:
    from engine.data_fetch import FetchReport, Holding

_SHOWN_SYMBOLS = 4


def print_fetch(report: FetchReport) -> None:
    """Each symbol's bars, what was fetched of them, and the hash over them."""
    table = Table(box=None, pad_edge=False)
    table.add_column("symbol")
    for name in ("bars", "from", "to", "were there", "read"):
        table.add_column(name, justify="right")
    table.add_column("sha256")
    for symbol, done in report.symbols.items():
        read = f"{done.fetched:,}" + (" (history had changed)" if done.changed else "")
        table.add_row(
            symbol, f"{done.rows:,}", _day(done.first), _day(done.last), f"{done.before:,}", read,
            "" if done.sha256 is None else done.sha256[:12],
        )  # fmt: skip
    console(width=120).print(table)
    for symbol in report.missing:
        warn(f"{symbol}: {report.source} has less than two bars; check the symbol and data.start")
    total = sum(done.rows for done in report.symbols.values())
    say(f"{len(report.symbols)} symbols, {total:,} bars of {report.timeframe}, sha256 {report.sha256[:12]}.")


def print_holdings(holdings: list[Holding]) -> None:
    """A line for each source, variant and timeframe that the cache holds."""
    table = Table(box=None, pad_edge=False)
    for name in ("source", "", "timeframe", "symbols"):
        table.add_column(name)
    for name in ("bars", "from", "to", "MB"):
        table.add_column(name, justify="right")
    for holding in holdings:
        entries = holding.symbols
        named = ", ".join(list(entries)[:_SHOWN_SYMBOLS]) + (", ..." if len(entries) > _SHOWN_SYMBOLS else "")
        firsts = [entry.first for entry in entries.values() if entry.first is not None]
        lasts = [entry.last for entry in entries.values() if entry.last is not None]
        table.add_row(
            holding.source, holding.words if holding.source == "files" else holding.variant, holding.timeframe,
            f"{len(entries)}: {named}", f"{sum(entry.rows for entry in entries.values()):,}",
            _day(min(firsts, default=None)), _day(max(lasts, default=None)), f"{holding.size_bytes / 1e6:.1f}",
        )  # fmt: skip
    console(width=120).print(table)


def _day(time: str | None) -> str:
    return "" if time is None else time[:10]

"""What people see of a data check: what was found, and how much of each symbol is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from engine.terminal import console, say, warn

if TYPE_CHECKING:
    from engine.data.cleaning.checking import Coverage
    from engine.data_check import DataCheck

_SYMBOLS_SHOWN = 20
_REFUSALS_SHOWN = 5


def print_check(check: DataCheck) -> None:
    """The kinds that were found with the worst of each, and the coverage of the symbols that lack most."""
    checked = check.checked
    for refusal in checked.refusals[:_REFUSALS_SHOWN]:
        warn(f"REFUSED: {refusal.sentence}")
    if len(checked.refusals) > _REFUSALS_SHOWN:
        warn(f"{len(checked.refusals) - _REFUSALS_SHOWN} more reasons for which loading fails are in the page")
    _print_kinds(check)
    shown = sorted(checked.coverage, key=lambda own: (-(own.missing_pct or 0.0), -own.dropped, own.symbol))
    if shown:
        _print_coverage(shown[:_SYMBOLS_SHOWN], check)
    if len(shown) > _SYMBOLS_SHOWN:
        say(f"{len(shown) - _SYMBOLS_SHOWN} more symbols lack no more than these; --json names all of them.")
    for sentence in check.verdict:
        say(sentence)


def _print_kinds(check: DataCheck) -> None:
    from engine.report.data_words import example, kind_rows

    rows = kind_rows(check.checked)
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for name, justify in (("found", "left"), ("policy", "left"), ("symbols", "right"), ("bars", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("the worst of them", ratio=1, overflow="fold")
    for row in rows:
        policy = Text("REFUSED", style="red") if row.refused else Text(row.policy)
        worst = Text(example(row.worst, check.checked.raw.timeframe))
        table.add_row(Text(row.kind), policy, f"{row.symbols:,}", f"{row.bars:,}", worst)
    console(width=120).print(table)


def _print_coverage(shown: list[Coverage], check: DataCheck) -> None:
    from engine.report.data_words import at

    timeframe = check.checked.raw.timeframe
    table = Table(box=None, pad_edge=False)
    table.add_column("symbol", no_wrap=True)
    for name in ("first", "last", "bars", "expected", "missing", "missing, %", "dropped"):
        table.add_column(name, justify="right", no_wrap=True)
    for own in shown:
        known = [("–" if count is None else f"{count:,}") for count in (own.bars, own.expected, own.missing)]
        share = "–" if own.missing_pct is None else f"{own.missing_pct:.2f}"
        ends = (at(own.first, timeframe), at(own.last, timeframe))
        table.add_row(Text(own.symbol), *ends, *known, share, f"{own.dropped:,}")
    console(width=120).print(table)

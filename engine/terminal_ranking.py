"""What people see of a ranking: who is accurate, what it earns, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from engine.report.catalogue import NOTHING
from engine.report.ranking import headline, mark
from engine.terminal import console, say, warn

if TYPE_CHECKING:
    from engine.ranking import RankingReport
    from engine.report.leaderboard import Entry
    from engine.report.ranking import Ranking

Number = float | int | None
_WIDE = 100


def print_ranking(report: RankingReport) -> None:
    """Two tables, both in the order of accuracy, and what they say."""
    ranking = report.ranking
    board = ranking.board
    shown = console(width=120)
    for table in (_accuracy(board.entries, wide=shown.width >= _WIDE), _use(ranking, wide=shown.width >= _WIDE)):
        shown.print(table)
        say("")
    folds = f"{len(ranking.folds)} fold{'s' * (len(ranking.folds) != 1)}"
    say(
        f"{board.rows:,} forecasts of {board.dates:,} dates in {folds}; {report.fitted} models fitted, {report.reused} "
        f"kept from before. p: one-sided, better than every naive forecast, corrected for the number of kinds (Holm)."
    )
    for sentence in headline(board):
        warn(sentence.removeprefix("Note on ")) if sentence.startswith("Note on ") else say(sentence)


def _accuracy(entries: Sequence[Entry], *, wide: bool) -> Table:
    table = _table(["R² %", "95 % interval", *(["seeds ±", "CRPS bps"] if wide else []), "hit %", "p", ""])
    for entry in entries:
        own, low, high = entry.accuracy, entry.r2_low, entry.r2_high
        interval = NOTHING if low is None or high is None else f"{_signed(low, 100)} to {_signed(high, 100)}"
        more = _plain(entry.accuracy_spread["r2_out_of_sample"], 100), _plain(own["crps"], 1e4)
        table.add_row(
            entry.label,
            _signed(own["r2_out_of_sample"], 100),
            interval,
            *(more if wide else ()),
            _plain(own["hit_rate_pct"], places=1),
            _plain(entry.holm_p, places=3),
            Text(mark(entry), style="bold green" if entry.beats_naive else "dim"),
        )
    return table


def _use(ranking: Ranking, *, wide: bool) -> Table:
    speeds = ["p50 ms", "p99 ms", "1,000/s"] if wide else ["p99 ms", "1,000/s"]
    table = _table(["return %", "Sharpe", "turnover", "params", "fit s", *speeds])
    for entry in ranking.board.entries:
        own, speed = entry.strategy, ranking.speeds[entry.label]
        table.add_row(
            entry.label,
            _signed(own["total_return_pct"], places=1),
            _plain(own["sharpe_ratio"]),
            _plain(own["turnover_ann"], places=1),
            f"{ranking.parameters[entry.label]:,}",
            _plain(speed.training_seconds, places=1),
            *([_plain(speed.latency_p50_ms)] if wide else []),
            _plain(speed.latency_p99_ms),
            _plain(speed.forecasts_per_second, 1e-3, places=0),
        )
    held = ranking.board.buy_and_hold
    passive = ["buy and hold", _signed(held["total_return_pct"], places=1), _plain(held["sharpe_ratio"])]
    table.add_row(*(Text(text, style="dim") for text in passive))
    return table


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("kind", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    return table


def _signed(value: Number, scale: float = 1.0, *, places: int = 2) -> str:
    return NOTHING if value is None else f"{value * scale:+,.{places}f}".replace("-", "−")


def _plain(value: Number, scale: float = 1.0, *, places: int = 2) -> str:
    return NOTHING if value is None else f"{value * scale:,.{places}f}".replace("-", "−")

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


def print_ranking(report: RankingReport) -> None:
    """Two tables, both in the order of accuracy, and what they say."""
    ranking = report.ranking
    board = ranking.board
    tables = [_accuracy(board.entries), _use(ranking)]
    for table in tables:
        console(width=120).print(table)
        say("")
    folds = f"{len(ranking.folds)} fold{'s' * (len(ranking.folds) != 1)}"
    say(
        f"{board.rows:,} forecasts of {board.dates:,} dates in {folds}; {report.fitted} models fitted, {report.reused} "
        f"kept from before. p: one-sided, better than every naive forecast, corrected for the number of kinds (Holm)."
    )
    for sentence in headline(board):
        warn(sentence.removeprefix("Note on ")) if sentence.startswith("Note on ") else say(sentence)


def _accuracy(entries: Sequence[Entry]) -> Table:
    several = any(len(entry.seeds) > 1 for entry in entries)
    table = Table(box=None, pad_edge=False)
    table.add_column("kind", overflow="fold")
    for name in ("R² %", "95 % interval", *(["± seeds"] if several else []), "hit %", "CRPS bps", "p", ""):
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
    for entry in entries:
        own = entry.accuracy
        interval = f"{_signed(entry.r2_low, 100)} to {_signed(entry.r2_high, 100)}"
        spread = [_plain(entry.accuracy_spread["r2_out_of_sample"], 100)] if several else []
        table.add_row(
            entry.label,
            _signed(own["r2_out_of_sample"], 100),
            interval if entry.r2_low is not None else NOTHING,
            *spread,
            _plain(own["hit_rate_pct"], places=1),
            _plain(own["crps"], 1e4),
            _plain(entry.holm_p, places=3),
            Text(mark(entry), style="bold green" if entry.beats_naive else "dim"),
        )
    return table


def _use(ranking: Ranking) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("kind", overflow="fold")
    for name in ("return %", "Sharpe", "turnover", "parameters", "fit s", "p50 ms", "p99 ms", "1,000/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in ranking.board.entries:
        own, speed = entry.strategy, ranking.speeds[entry.label]
        table.add_row(
            entry.label,
            _signed(own["total_return_pct"], places=1),
            _plain(own["sharpe_ratio"]),
            _plain(own["turnover_ann"], places=1),
            f"{ranking.parameters[entry.label]:,}",
            _plain(speed.training_seconds, places=1),
            _plain(speed.latency_p50_ms),
            _plain(speed.latency_p99_ms),
            _plain(speed.forecasts_per_second, 1e-3, places=0),
        )
    held = ranking.board.buy_and_hold
    passive = [_signed(held["total_return_pct"], places=1), _plain(held["sharpe_ratio"])]
    table.add_row(Text("buy and hold", style="dim"), *(Text(text, style="dim") for text in passive))
    return table


def _signed(value: Number, scale: float = 1.0, *, places: int = 2) -> str:
    return NOTHING if value is None else f"{value * scale:+,.{places}f}".replace("-", "−")


def _plain(value: Number, scale: float = 1.0, *, places: int = 2) -> str:
    return NOTHING if value is None else f"{value * scale:,.{places}f}".replace("-", "−")

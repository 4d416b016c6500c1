"""A ranking: the leaderboard, what each kind is and how long it takes, and what the figures say in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from engine.report.leaderboard import Entry, Leaderboard
from engine.report.run import plain


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How long a kind takes, on one thread of this machine.

    Attributes:
        training_seconds: of one fit, the mean over folds and seeds; None where an earlier ranking did not note it.
        latency_p50_ms, latency_p99_ms: of one forecast at the last bar of one symbol, features included.
        forecasts_per_second: over a whole series at once.
    """

    training_seconds: float | None
    latency_p50_ms: float
    latency_p99_ms: float
    forecasts_per_second: float


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Everything that a ranking shows.

    Attributes:
        kinds, parameters, memory: of each label. speeds: label -> durations, no part of what is reproducible.
        folds: spans by name, first and last session of each.
        strategy, symbols, timeframe, horizon: what was forecast and traded.
        flags: SYNTHETIC and the like.
        hashes: of the run file and the bars.
    """

    name: str
    board: Leaderboard
    kinds: Mapping[str, str]
    parameters: Mapping[str, int]
    memory: Mapping[str, int]
    speeds: Mapping[str, Speed]
    folds: tuple[Mapping[str, tuple[str, str]], ...]
    strategy: str
    symbols: tuple[str, ...]
    timeframe: str
    horizon: int
    flags: tuple[str, ...]
    hashes: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """The ranking as one JSON-ready object; all that may differ from one time to the next is in ``durations``."""
        board = self.board
        entries = []
        for place, entry in enumerate(board.entries, start=1):
            figures = {key: value for key, value in vars(entry).items() if key != "equity"}
            label = entry.label
            own = {"kind": self.kinds[label], "parameters": self.parameters[label], "memory": self.memory[label]}
            entries.append({"place": place, **figures, **own})
        written: dict[str, Any] = plain(
            {
                "name": self.name,
                "hashes": self.hashes,
                "headline": headline(board),
                "strategy": self.strategy,
                "symbols": self.symbols,
                "timeframe": self.timeframe,
                "horizon": self.horizon,
                "flags": self.flags,
                "folds": self.folds,
                "rows": board.rows,
                "rows_left_out": board.left_out,
                "dates": board.dates,
                "always_up_pct": board.always_up_pct,
                "entries": entries,
                "diebold_mariano": board.pairs,
                "buy_and_hold": board.buy_and_hold,
                "durations": {label: asdict(speed) for label, speed in self.speeds.items()},
            }
        )
        return written


def headline(board: Leaderboard) -> list[str]:
    """What the figures say: who beats the naive forecasts, who beats buy-and-hold, and what is suspicious."""
    kinds = [entry for entry in board.entries if not entry.baseline]
    better = [entry.label for entry in kinds if entry.beats_naive]
    count = f"{len(kinds)} kind{'s' * (len(kinds) != 1)}"
    best = board.best
    first = f"{best.label} has the smallest error, with R² {_signed(best.accuracy['r2_out_of_sample'])} against zero"
    sentences = [
        f"Better than every naive forecast by more than chance explains, of {count}: {', '.join(better)}."
        if better
        else f"None of the {count} beats the naive forecasts by more than chance explains."
    ]
    if best.baseline:
        sentences.append(f"The most accurate is itself a naive forecast: {first}.")
    elif not better:
        sentences.append(f"{first[:1].upper()}{first[1:]}, which chance explains.")
    held = board.buy_and_hold.get("total_return_pct")
    if held is not None:
        winners = [e.label for e in kinds if (total := e.strategy.get("total_return_pct")) is not None and total > held]
        above = ", ".join(winners) if winners else "none"
        sentences.append(f"After costs, above buy-and-hold's {_signed(held, places=1)} %: {above}.")
    sentences += [f"Note on {entry.label}: {alarm}." for entry in kinds for alarm in entry.alarms]
    return sentences


def mark(entry: Entry) -> str:
    """A kind's verdict in a word or three."""
    if entry.baseline:
        return "naive"
    return "better than naive" if entry.beats_naive else "not better"


def _signed(value: float | int | None, *, places: int = 4) -> str:
    return "not defined" if value is None else f"{value:+.{places}f}".replace("-", "−")

"""What people see of a search: its best trials, what mattered, and how many the best is the best of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.table import Table

from engine.terminal import console, say, warn

if TYPE_CHECKING:
    from engine.tuning import TuneReport

_SHOWN = 10


def print_tuning(report: TuneReport) -> None:
    """The best trials with their choices, the importance of each key, and a caution."""
    sign = -1.0 if report.larger_is_better else 1.0
    complete = sorted(
        (trial for trial in report.trials if trial.score is not None),
        key=lambda trial: (sign * (trial.score or 0.0), trial.number),
    )
    keys = list(dict.fromkeys(key for trial in complete[:_SHOWN] for key in trial.parameters))
    table = Table(box=None, pad_edge=False)
    table.add_column("trial", justify="right")
    table.add_column(report.metric, justify="right")
    table.add_column("by fold")
    for key in keys:
        table.add_column(key)
    for trial in complete[:_SHOWN]:
        folds = " ".join(f"{score:.4g}" for score in trial.scores)
        values = (_shown(trial.parameters.get(key)) for key in keys)
        table.add_row(str(trial.number), f"{trial.score:.5g}", folds, *values)
    console(width=160).print(table)
    if report.importances:
        shares = ", ".join(f"{key} {share:.0%}" for key, share in report.importances.items())
        say(f"What the scores depend on: {shares}.")
    counts = report.counts()
    say(
        f"{len(report.trials)} trials: {counts['complete']} complete, {counts['pruned']} given up half way, "
        f"{counts['failed']} failed."
    )
    failed = next((trial for trial in report.trials if trial.state == "failed"), None)
    if failed is not None:
        warn(f"trial {failed.number} failed: {failed.reason}")
    way = "highest" if report.larger_is_better else "lowest"
    say(
        f"The best is the {way} {report.metric} of {len(report.trials)} on {len(report.folds)} validation folds: "
        "it owes some of that to luck, and the test span, which no trial saw, will say how much."
    )


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)

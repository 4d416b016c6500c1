"""The commands that are about many models at once, one function each, as in ``engine.cli``, which registers them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from engine.commands import AsJson, Config, Overrides


def models(
    config: Config,
    *,
    overrides: Overrides = None,
    processes: Annotated[
        int, typer.Option(metavar="N", help="How many models are fitted side by side; changes no figure.")
    ] = 2,
    fresh: Annotated[bool, typer.Option("--fresh", help="Fit every model anew, also those that are kept.")] = False,
    as_json: AsJson = False,
) -> None:
    """Rank the run file's kinds of models on the same folds: accuracy, money after costs, speed, beside naive ones."""
    from engine import terminal
    from engine.ranking import rank
    from engine.run_file import load_config
    from engine.terminal_ranking import print_ranking

    resolved = load_config(config, overrides or ())
    with terminal.progress("models") as on_progress, terminal.stdout_kept():
        report = rank(resolved, now=datetime.now(UTC), processes=processes, fresh=fresh, on_progress=on_progress)
    if as_json:
        terminal.print_json(report.to_json())
    else:
        print_ranking(report)
    terminal.wrote(report.path, following="open it in a browser")


def tune(config: Config, *, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Search the run file for better values on validation folds, and write the best one; the test span stays sealed."""
    from engine import terminal
    from engine.run_file import load_config
    from engine.terminal_tuning import print_tuning
    from engine.tuning import tune

    resolved = load_config(config, overrides or ())
    with terminal.progress("trials") as on_progress, terminal.stdout_kept():
        report = tune(resolved, on_progress=on_progress, on_remark=terminal.say)
    if as_json:
        terminal.print_json(report.to_json())
    else:
        print_tuning(report)
    terminal.wrote(report.best_config, following=f"nextbar train {report.best_config}")

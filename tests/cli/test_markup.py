"""Names that people give are printed as they are, even those that look like rich's markup."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.table import Table

from engine.terminal import console, say
from engine.terminal_tuning import print_tuning
from engine.tuning import TuneReport
from engine.tuning_trials import Trial

NAME = "[/red]x [bold]y :warning:"


def test_cells_and_headers_and_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(NAME)
    table.add_row(NAME)
    console(width=100).print(table)
    say(NAME)
    assert capsys.readouterr().err.count(NAME) == 3


def test_the_table_of_a_search(capsys: pytest.CaptureFixture[str]) -> None:
    trial = Trial(number=0, state="complete", parameters={"strategy.params.[/red]x": NAME}, scores=(0.5,))
    print_tuning(
        TuneReport(
            path=Path("study"), best_config=Path("best.yaml"), metric="mae", larger_is_better=False,
            folds=(("2020-01-02", "2020-02-03"),), trials=(trial,), resumed=0, best=trial, importances={}, others=(),
        )
    )  # fmt: skip
    told = capsys.readouterr().err
    assert "strategy.params.[/red]x" in told
    assert NAME in told

"""A project folder with a tiny model, trained once for all tests of the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from engine.cli import app
from engine.config import DataConfig
from engine.data.calendars import sessions_of
from engine.data.sources import load_bars

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"source": "sample:tech", "symbols": ["AAPL", "MSFT"], "benchmark": "sample:sp500"},
    "spans": {
        "train": ["2009-01-01", "2009-12-31"],
        "validate": ["2010-01-01", "2010-06-30"],
        "test": ["2011-01-01", "2011-06-30"],
    },
    "model": {"kind": "lstm", "features": ["log_return", "volatility_5"], "lookback": 5, "hidden": 4, "layers": 1},
    "training": {"seed": 7, "epochs": 1, "batch": 64},
    "strategy": {"kind": "strategies.forecast:Forecast", "params": {"margin_bps": -10, "full_size": 0.001}},
    "broker": {"cash": 100000, "commission": {"bps": 1.0}, "slippage_bps": 2.0},
}


@dataclass(frozen=True)
class Project:
    """A folder in which commands run."""

    folder: Path

    def write(self, file: str = "run.yaml", /, **sections: Any) -> Path:
        """A run file like TINY with some sections replaced; None removes one."""
        values = {key: value for key, value in {**TINY, **sections}.items() if value is not None}
        path = self.folder / file
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    def run(self, *arguments: object) -> Result:
        """Run a command in this process; stdout and stderr are kept apart."""
        return CliRunner().invoke(app, [str(a) for a in arguments])

    def json(self, *arguments: object) -> dict[str, Any]:
        """Run a command with --json that must succeed; the one object on stdout."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        value = json.loads(result.stdout)
        assert isinstance(value, dict)
        return value

    def fails(self, code: int, *arguments: object) -> str:
        """Run a command that must fail with this exit code, and one sentence without a traceback."""
        result = self.run(*arguments)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("nextbar: ")]
        assert len(lines) == 1, result.stderr
        assert result.stdout == ""
        assert not list(self.folder.rglob(".*partial*"))
        return lines[0].removeprefix("nextbar: ")

    @property
    def runs(self) -> list[Path]:
        """The run folders, oldest first."""
        return sorted(path.parent for path in (self.folder / "runs").glob("*/manifest.json"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle of TINY."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        project = Project(folder)
        result = project.run("train", project.write())
        assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path)


@pytest.fixture
def project(trained: Path, empty: Project) -> Project:
    """A folder of its own with a trained bundle."""
    shutil.copytree(trained, empty.folder, dirs_exist_ok=True)
    return empty


Bars = Callable[..., Path]


@pytest.fixture
def bars_file(tmp_path: Path) -> Bars:
    """Writes a CSV of daily bars, changed by ``change(list of rows)``."""

    def write(change: Callable[[list[str]], list[str]] = lambda rows: rows, *, count: int = 400) -> Path:
        sample = load_bars(DataConfig(source="sample:tech", symbols=("IBM",)), Path())
        sessions = sessions_of(pd.DatetimeIndex(sample.frames["IBM"].loc["2009":].index))[:count]
        close = 100 * np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.01, count)))
        opened = np.concatenate([[100.0], close[:-1]])
        rows = [
            f"{day:%Y-%m-%d},{o:.4f},{max(o, c) * 1.01:.4f},{min(o, c) * 0.99:.4f},{c:.4f},1000"
            for day, o, c in zip(sessions, opened, close, strict=True)
        ]
        path = tmp_path / "bars" / "ABC.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(["date,open,high,low,close,volume", *change(rows)]) + "\n")
        return path

    return write

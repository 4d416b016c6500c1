"""A project folder with a tiny model, trained once for all tests of the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_project import Bars, Project

from engine.config import DataConfig
from engine.data.calendars import sessions_of
from engine.data.sources import load_bars


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

"""Where the market goes on by itself a newer bundle decides from the restart on; what was missed is the old one's."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from engine.errors import NextbarError
from engine.exchange.account import AccountSpec
from engine.exchange.server import ExchangeServer
from engine.live.journal import FILE, Journal
from engine.live.status import Status
from engine.paper import PaperReport, paper
from engine.paper_record import read_paper
from engine.run_file import load_config
from engine.serving import bars_to_replay
from engine.training import train
from engine.twin import twin
from models.bundle_files import load_bundle
from models.features import Columns
from models.forecaster import Forecaster

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SPEED = 1_500.0
DAY = "2023-11-24"
RUN: dict[str, Any] = {
    "name": "minutes",
    "data": {"source": "sample:minutes", "symbols": ["SYN_CALM", "SYN_WILD"], "timeframe": "1m", "warmup_bars": 30},
    "spans": {"test": [DAY, DAY]},
    "strategy": {"kind": "strategies.forecast:Forecast", "params": {"margin_bps": -50, "full_size": 0.001}},
    "risk": {"stale_model_days": 3},
}
MODEL = {"kind": "ridge", "features": ["log_return", "range"], "lookback": 5, "alpha": 1.0}


def placed(root: Path, **sections: Any) -> Path:
    path = root / "run.yaml"
    path.write_text(yaml.safe_dump({**RUN, **sections}))
    return path


def bundle_in(root: Path, name: str, train_on: str, choose_on: str) -> Path:
    spans = {"train": [train_on, train_on], "validate": [choose_on, choose_on], "test": [DAY, DAY]}
    return train(load_config(placed(root, name=name, spans=spans, model=MODEL)), root=root, now=NOW).path


def go(root: Path, bundle: Path, *, steps: int | None = None) -> tuple[PaperReport | None, Status]:
    seen: list[Status] = []

    def look(status: Any) -> None:
        seen.append(status())
        if steps is not None and seen[-1].step >= steps:
            raise KeyboardInterrupt

    config = load_config(placed(root, model={"bundle": str(bundle)}))
    try:
        return paper(config, root=root, now=NOW, replay=False, on_status=look), seen[-1]
    except (KeyboardInterrupt, NextbarError):
        assert steps is not None
        return None, seen[-1]


def test_the_new_one_decides_from_the_restart_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = bundle_in(tmp_path, "old", "2023-11-17", "2023-11-20")
    new = bundle_in(tmp_path, "new", "2023-11-21", "2023-11-22")
    config = load_config(placed(tmp_path, model={"bundle": str(old)}))
    bars, start = bars_to_replay(config)
    account = AccountSpec(key="k", secret="a-secret", broker=config.broker)
    with ExchangeServer(bars=bars, start=start, accounts=[account], speed=SPEED) as exchange:
        monkeypatch.setenv("APCA_API_BASE_URL", exchange.url)
        monkeypatch.setenv("APCA_API_KEY_ID", "k")
        monkeypatch.setenv("APCA_API_SECRET_KEY", "a-secret")
        _, then = go(tmp_path, old, steps=15)
        assert "risk.stale_model_days: the model has seen no bar since 2023-11-20" in then.paused
        report, last = go(tmp_path, new)
    assert report is not None
    assert report.status == "completed"
    assert last.paused == ""
    assert "the model has seen no bar" not in " ".join(last.log)

    journal = Journal.read_only(report.run / FILE)
    (change,) = [entry.body for entry in journal.entries("model")]
    journal.close()
    assert (change["old"]["name"], change["new"]["name"], change["begins"]) == (old.name, new.name, DAY)
    _, _, recorded = read_paper(report.run)
    frames = recorded.frames()
    late = [time for time, decide, _ in recorded.steps if decide and time > change["after"]]
    missed = [time for time, decide, _ in recorded.steps if not decide and time <= change["after"]]
    assert late
    assert missed
    assert then.time <= change["after"]
    for symbol, made in recorded.forecasts.items():
        columns = Columns.of(frames[symbol])
        for bundle, is_its_time in ((old, columns.times <= change["after"]), (new, columns.times > change["after"])):
            expected = Forecaster(load_bundle(bundle)).forecast(columns)
            rows = [row for row in np.flatnonzero(is_its_time) if int(columns.times[row]) in made]
            assert rows
            assert [list(made[int(columns.times[row])]) for row in rows] == expected[rows].tolist()
    assert twin(report.run.name, root=tmp_path / "runs").verdict == "identical"

"""A run file through both use cases, and everything in which the two run folders must agree."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from engine.backtest import BacktestReport, backtest
from engine.config import RunConfig
from engine.live.journal import FILE, Entry, Journal
from engine.paper import PaperReport, paper
from engine.run_file import load_config

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

TECH: dict[str, Any] = {
    "name": "pair",
    "data": {"source": "sample:tech", "symbols": ["AAPL", "GOOG", "IBM", "MSFT"], "warmup_bars": 30},
    "spans": {"test": ["2011-01-01", "2011-03-25"]},
    "strategy": {"kind": "strategies.sma_cross:SmaCross", "params": {"fast": 5, "slow": 12}},
    "broker": {"cash": 100000, "commission": {"bps": 1.0}, "slippage_bps": 2.0},
}


def write_config(folder: Path, *, file: str = "run.yaml", **sections: Any) -> RunConfig:
    """A run file like TECH with some sections replaced; None removes one."""
    values = {key: value for key, value in {**TECH, **sections}.items() if value is not None}
    path = folder / file
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return load_config(path)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What the two modes made of one run file."""

    backtest: BacktestReport
    paper: PaperReport

    @property
    def fills(self) -> pd.DataFrame:
        """The backtest's fills."""
        return frame(self.backtest.run, "fills")

    @property
    def orders(self) -> pd.DataFrame:
        """The backtest's orders."""
        return frame(self.backtest.run, "orders")

    def agree(self) -> Pair:
        """Fail unless both are the same, to the bit."""
        assert_folders_agree(self.backtest.run, self.paper.run)
        assert self.paper.orders_hash == self.backtest.orders_hash
        assert self.paper.fills_hash == self.backtest.fills_hash
        assert self.paper.halted == self.backtest.halted
        assert self.paper.status == self.backtest.status
        return self


def run_both(folder: Path, **sections: Any) -> Pair:
    """Backtest the run file, and replay it on the embedded exchange."""
    config = write_config(folder, **sections)
    tested = backtest(config, root=folder, now=NOW)
    return Pair(backtest=tested, paper=paper(config, root=folder, now=NOW, replay=True))


def assert_folders_agree(tested: Path, replayed: Path) -> None:
    """Records, figures and fingerprints; only the words in which an end is explained are each mode's own."""
    for name in ("orders", "fills", "trades", "equity", "forecasts", "bars"):
        expected, found = frame(tested, name), frame(replayed, name)
        if name == "orders":
            # Why the account cut or ended an order is told by our venue in the one mode, by the broker in the other.
            at_home = expected["status"].isin(["refused", "rejected"])
            pd.testing.assert_frame_equal(found[at_home], expected[at_home], check_exact=True, obj=name)
            expected, found = expected.drop(columns="reason"), found.drop(columns="reason")
        pd.testing.assert_frame_equal(found, expected, check_exact=True, obj=name)
    assert (replayed / "metrics.json").read_bytes() == (tested / "metrics.json").read_bytes()
    expected_manifest, found_manifest = manifest(tested), manifest(replayed)
    same = ("hashes", "orders_hash", "fills_hash", "halted", "period", "symbols", "bundle", "bundles", "seed")
    for key in (*same, "source", "timeframe", "adjustment", "in_sample", "synthetic", "close_only"):
        assert found_manifest[key] == expected_manifest[key], key


def frame(folder: Path, name: str) -> pd.DataFrame:
    """One of a run folder's records."""
    return pd.read_parquet(folder / f"{name}.parquet")


def manifest(folder: Path) -> dict[str, Any]:
    """A run folder's manifest."""
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def entries(folder: Path, *kinds: str) -> list[Entry]:
    """Entries of a paper run's journal, in order."""
    journal = Journal.read_only(folder / FILE, identity=manifest(folder)["journal"])
    try:
        return list(journal.entries(*kinds))
    finally:
        journal.close()

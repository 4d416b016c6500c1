"""The demo, with the real default model: what a newcomer types first."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]


def nextbar(folder: Path, *arguments: str) -> str:
    """Run a command of the demo in an empty folder; what it said on stderr."""
    done = subprocess.run([sys.executable, "-m", "engine.cli", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_demo_trains_trades_and_compares_the_default_model(tmp_path: Path) -> None:
    commands = re.findall(r"\$\(BIN\)/nextbar (\S.*)", (ROOT / "Makefile").read_text())
    steps = ["train", "backtest", "backtest", "backtest", "compare", "paper", "twin"]
    assert [command.split()[0] for command in commands] == steps
    told = {}
    for command in commands:
        said = nextbar(tmp_path, *(str(ROOT / part) if part.endswith(".yaml") else part for part in command.split()))
        told[command.split()[0]] = said
    assert "compare.html" in told["compare"]
    assert "identical" in told["twin"]
    assert "the same orders and the same fills" in told["twin"]

    (bundle,) = (tmp_path / "bundles").iterdir()
    record = json.loads((bundle / "bundle.json").read_text())
    assert record["evaluation"]["n"] > 2000
    assert 60.0 < record["evaluation"]["coverage_pct"] < 95.0
    curve = pd.read_csv(bundle / "training.csv")
    assert curve["validation_loss"].min() < curve["validation_loss"].iloc[0]

    folder, traded = sorted((tmp_path / "runs").glob("*-quickstart*"))
    for name in ("metrics.json", "orders.parquet", "fills.parquet", "forecasts.parquet", "equity.parquet"):
        assert (folder / name).read_bytes() == (traded / name).read_bytes(), name
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["strategy"]["trades"] > 10
    assert metrics["buy_and_hold"]["total_return_pct"] != metrics["benchmark"]["total_return_pct"]

    again = nextbar(tmp_path, "backtest", str(ROOT / "configs" / "quickstart.yaml"))
    other = next(f for f in (tmp_path / "runs").glob("*-quickstart*") if f not in (folder, traded))
    assert other.name in again
    for name in ("metrics.json", "orders.parquet", "fills.parquet", "forecasts.parquet"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()

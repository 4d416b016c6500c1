"""Synthetic bars and tiny models: quick to fit, and the same on every machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.data.cuts import labelled_slice
from models.bundle import Bundle, new_bundle
from models.bundle_files import write_bundle
from models.curve import EpochLosses
from models.features import parse_features
from models.networks import build_network
from models.windows import Windows


def make_frame(count: int = 120, *, seed: int = 0, start: str = "2020-01-02", returns: np.ndarray | None = None):
    """Daily bars of a random walk, or of the given log returns; bar ends at 21:00 UTC on weekdays."""
    random = np.random.default_rng(seed)
    moves = random.normal(0.0, 0.01, count) if returns is None else returns
    close = 100.0 * np.exp(np.cumsum(moves))
    opening = np.concatenate([[100.0], close[:-1]]) * np.exp(random.normal(0.0, 0.003, len(moves)))
    high = np.maximum(opening, close) * np.exp(np.abs(random.normal(0.0, 0.004, len(moves))))
    low = np.minimum(opening, close) * np.exp(-np.abs(random.normal(0.0, 0.004, len(moves))))
    volume = np.round(np.exp(random.normal(12.0, 0.5, len(moves))))
    days = pd.bdate_range(start, periods=len(moves))
    index = pd.DatetimeIndex(days + pd.Timedelta(hours=21), tz="UTC", name="time").as_unit("ns")
    return pd.DataFrame(
        {"open": opening, "high": high, "low": low, "close": close, "volume": volume}, index=index, dtype=float
    )


def make_bars(symbols: dict[str, pd.DataFrame] | None = None, *, close_only: bool = False) -> Bars:
    """A set of bars: two symbols of unequal length unless told otherwise."""
    frames = symbols or {"AAA": make_frame(160, seed=1), "BBB": make_frame(130, seed=2, start="2020-02-13")}
    return Bars(
        frames=dict(sorted(frames.items())),
        timeframe="1d",
        adjustment="none",
        source="synthetic",
        close_only=close_only,
        synthetic=True,
    )


FEATURES = ("log_return", "range", "gap", "volatility_5", "volume_zscore_5", "rsi_5", "distance_from_mean_5", "weekday")


def make_config(head: str = "quantile", **sections: dict) -> RunConfig:
    """A tiny model on ``make_bars()``: hidden 4, lookback 5."""
    values = {
        "name": "tiny",
        "data": {"source": "synthetic", "symbols": ["AAA", "BBB"]},
        "spans": {
            "train": ["2020-01-02", "2020-04-30"],
            "validate": ["2020-05-01", "2020-06-12"],
            "test": ["2020-06-15", "2020-08-12"],
        },
        "model": {"kind": "lstm", "features": list(FEATURES), "lookback": 5, "hidden": 4, "layers": 2, "head": head},
        "training": {"epochs": 2, "batch": 32, "accelerator": "cpu"},
        "strategy": {"kind": "strategies.forecast:Forecast"},
    }
    for name, changes in sections.items():
        values[name] = {**values[name], **changes}
    return RunConfig.model_validate(values)


def make_windows(bars: Bars, config: RunConfig) -> tuple[Windows, dict[str, np.ndarray]]:
    """The windows of the bars, and the rows of the run file's train, validate and test spans."""
    model = config.model
    features = parse_features(model.features, close_only=bars.close_only)
    windows = Windows.build(bars, features, lookback=model.lookback, horizons=model.horizons)
    rows = {
        name: windows.rows(
            {
                symbol: labelled_slice(frame.index, config.spans.get(name), horizon=model.horizon)
                for symbol, frame in bars.frames.items()
            }
        )
        for name in ("train", "validate", "test")
    }
    return windows, rows


def make_bundle(root: Path, *, bars: Bars | None = None, config: RunConfig | None = None) -> Bundle:
    """A written bundle with fitted scaling and seeded but untrained weights."""
    bars, config = bars or make_bars(), config or make_config()
    windows, rows = make_windows(bars, config)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        network = build_network(config.model)
    labels = windows.labels[rows["train"]]
    network.fit_scaling(torch.from_numpy(windows.features[rows["train"]]), torch.from_numpy(labels))
    curve = (EpochLosses(1, 0.5, 0.25), EpochLosses(2, 0.4, 0.3))
    return write_bundle(new_bundle(config, network, curve=curve, bars=bars, train_labels=labels[:, 0], root=root))

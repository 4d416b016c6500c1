"""Tasks and fits of models that are not learned by gradients, as ``nextbar train`` makes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from synthetic import FEATURES, make_config, make_frame

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.model_sections import MODEL_KINDS
from models.features import parse_features
from models.fitting import fit
from models.fitting.bundles import decisions_of
from models.fitting.task import Fit, Task
from models.windows import Windows

SPANS = {
    "train": ["2010-01-01", "2013-12-31"],
    "validate": ["2014-01-01", "2014-12-31"],
    "test": ["2015-01-01", "2015-12-31"],
}


def config_of(kind: str, **model: Any) -> RunConfig:
    """A run file with a model of that kind, on daily bars from 2010 to 2015."""
    known = MODEL_KINDS[kind].model_fields
    values = {name: value for name, value in {"features": FEATURES, "lookback": 5}.items() if name in known}
    config = make_config(spans=SPANS)
    return RunConfig.model_validate(
        {**config.model_dump(mode="json"), "model": {"kind": kind, **values, **model}}, context=None
    )


def frame_of(returns: np.ndarray, **more: Any):
    """Daily bars of given log returns from 2010 on."""
    return make_frame(start="2010-01-01", returns=returns, **more)


def task_of(config: RunConfig, bars: Bars) -> Task:
    """What ``fit`` is given."""
    model = config.model
    features = parse_features(model.features, close_only=bars.close_only)
    windows = Windows.build(bars, features, lookback=model.lookback, horizons=model.horizons)
    decisions = decisions_of(config, model, bars)
    return Task(
        model=model,
        windows=windows,
        train_rows=windows.rows(decisions["train"], inside=bars.inside),
        validation_rows=windows.rows(decisions["validate"], inside=bars.inside),
        training=config.training,
    )


def fitted(config: RunConfig, bars: Bars) -> tuple[Fit, Task]:
    """The fit, and what it was made from."""
    task = task_of(config, bars)
    return fit(task), task


def forecasts(found: Fit, task: Task, rows: np.ndarray, at: int = 0) -> np.ndarray:
    """[rows, 3] in log returns, float64."""
    return found.network.forecast(task.windows.gather(rows), at).detach().double().numpy()

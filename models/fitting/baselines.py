"""The naive forecasts as linear models: nothing, the mean of the training span, and the last return once more."""

from __future__ import annotations

import numpy as np
import torch

from models.fitting.linear import linear_network
from models.fitting.task import Fit, Task


def fit(task: Task) -> Fit:
    """The baseline of the task's kind; only ``mean`` looks at the training span."""
    kind = task.model.kind
    horizons, lookback = task.model.horizons, task.model.lookback
    coefficients, constants = np.zeros((len(horizons), lookback)), np.zeros(len(horizons))
    if kind == "mean":
        constants = task.windows.labels[task.train_rows].astype(np.float64).mean(axis=0)
    elif kind == "last_return":
        for at, horizon in enumerate(horizons):
            coefficients[at, lookback - horizon :] = 1.0
    elif kind != "zero":
        raise ValueError(f"expected a baseline, found {kind}")
    return Fit(linear_network(task, torch.from_numpy(coefficients), torch.from_numpy(constants)))

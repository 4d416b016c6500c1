"""Fitting: each kind of model in the way that suits it, behind one door."""

from __future__ import annotations

import importlib
from typing import cast

from engine.model_sections import ModelSection
from models.fitting.task import Fit, Task
from models.networks import BODIES

# Kind -> the module whose ``fit`` takes a Task; the others are fitted by gradients. Imported where it is needed, since
# Lightning, scikit-learn, LightGBM and statsmodels take seconds.
_MODULES = {
    "ridge": "models.fitting.regression",
    "elastic_net": "models.fitting.regression",
    "boosting": "models.fitting.boosting",
    "ar": "models.fitting.classical",
    "arima": "models.fitting.classical",
    "ets": "models.fitting.classical",
    "zero": "models.fitting.baselines",
    "mean": "models.fitting.baselines",
    "last_return": "models.fitting.baselines",
}


def by_gradients(model: ModelSection) -> bool:
    """Whether a model is one network that learns by gradients."""
    return model.kind in BODIES and model.kind not in _MODULES


def fit(task: Task) -> Fit:
    """Fit a model of any kind but an ensemble; the same task gives the same numbers.

    Raises:
        ConfigError: the kind cannot be fitted as the run file asks.
        NextbarError: there was no finite result.
        KeyboardInterrupt: on Ctrl-C; nothing is left behind.
    """
    kind = task.model.kind
    module = importlib.import_module(_MODULES.get(kind, "models.fitting.gradient"))
    return cast(Fit, module.fit(task))

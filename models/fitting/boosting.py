"""Gradient-boosted trees by LightGBM, on the flattened, standardised window; one sum of trees for each output."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from engine.model_sections import BoostingConfig
from models.fitting.task import Fit, Task, calibrate_residuals
from models.networks import build_network
from models.networks.boosting import BoostedNetwork
from models.networks.heads import LOWER_LEVEL, UPPER_LEVEL
from models.windows import Rows, Singles, batches_of

PATIENCE = 30
"""Trees without a lower validation loss after which boosting stops."""

_BATCH = 4096
_LEVELS = {"median": 0.5, "lower": LOWER_LEVEL, "upper": UPPER_LEVEL}


def fit(task: Task) -> Fit:
    """Boost until the validation loss no longer falls, and keep the trees up to its lowest value.

    The point head learns by Huber loss, quantiles by pinball loss, as a network's heads do. One thread and no sampling:
    the same task gives the same trees.
    """
    import lightgbm

    model = task.model
    network = build_network(model)
    if not isinstance(model, BoostingConfig) or not isinstance(network, BoostedNetwork):
        raise ValueError(f"expected boosting, found {model.kind}")
    windows = task.windows
    network.fit_scaling(
        torch.from_numpy(windows.features[task.train_rows]), torch.from_numpy(windows.labels[task.train_rows])
    )
    network.eval()
    x, labels = _inputs(network, task, task.train_rows), windows.labels[task.train_rows]
    x_validation, labels_validation = _inputs(network, task, task.validation_rows), windows.labels[task.validation_rows]
    shared = {
        "num_leaves": model.leaves,
        "learning_rate": model.rate,
        "min_data_in_leaf": model.least_in_leaf,
        "use_missing": False,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "seed": task.training.seed,
        "verbosity": -1,
    }
    texts = {}
    train = lightgbm.Dataset(x, labels[:, 0], params=shared, free_raw_data=False)
    validation = train.create_valid(x_validation, labels_validation[:, 0])
    names = _LEVELS if model.head == "quantile" else {"point": 0.0}
    files = iter(network.files)
    for at in range(len(model.horizons)):
        scale = float(network.head(at).target.scale)
        train.set_label(labels[:, at] / scale)
        validation.set_label(labels_validation[:, at] / scale)
        for level in names.values():
            objective = {"objective": "quantile", "alpha": level} if level else {"objective": "huber", "alpha": 1.0}
            booster = lightgbm.train(
                {**shared, **objective},
                train,
                num_boost_round=model.trees,
                valid_sets=[validation],
                callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
            )
            texts[next(files)] = booster.model_to_string(num_iteration=booster.best_iteration).encode()
    network.load_texts(texts)
    calibrate_residuals(network, windows, task.validation_rows)
    return Fit(network)


def _inputs(network: BoostedNetwork, task: Task, rows: Rows) -> Singles:
    """Flattened windows as the network scales them, float32 [rows, lookback * features]."""
    width = task.windows.lookback * task.windows.features.shape[1]
    inputs: npt.NDArray[np.float32] = np.empty((len(rows), width), dtype=np.float32)
    filled = 0
    with torch.inference_mode():
        for batch, _ in batches_of(task.windows, rows, batch=_BATCH):
            inputs[filled : filled + len(batch)] = network.scaling(batch).flatten(1).numpy()
            filled += len(batch)
    return inputs

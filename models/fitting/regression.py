"""Ridge and elastic net on the flattened, standardised window, one regression a horizon, by scikit-learn.

Least squares needs no more of the windows than their second moments. These are summed over batches, so that millions
of windows take no more memory than one matrix [inputs, inputs]; scikit-learn is then given as many rows as there are
inputs, which have the same moments and so the same solution.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.errors import NextbarError
from engine.model_sections import ElasticNetConfig, RidgeConfig
from models.features import Floats
from models.fitting.linear import linear_network
from models.fitting.task import Fit, Task
from models.networks import Network, build_network
from models.windows import Rows, Windows, batches_of

RIDGE_PENALTIES: tuple[float, ...] = tuple(10.0 ** (half / 2.0) for half in range(-6, 9))
"""What the validation span chooses from: 0.001 to 10,000 in half powers of ten."""

ELASTIC_NET_SHARES: tuple[float, ...] = tuple(10.0 ** (-step / 10.0) for step in range(20))
"""Of the smallest penalty at which nothing is left but the constant: 1 down to about 1/80."""

_BATCH = 4096
_MOST_SWEEPS = 20_000


def fit(task: Task) -> Fit:
    """The regression of the task's kind, fitted on the training span; its penalty is the run file's or chosen.

    The penalty ``alpha`` is meant per window and in labels of unit root mean square: ridge minimises
    mean((y - a - X b)^2) + alpha |b|^2, scikit-learn's ``Ridge(alpha * windows)``; elastic net minimises what
    scikit-learn's ``ElasticNet(alpha, l1_ratio)`` does. Without it, the candidate with the lowest mean squared error
    on the validation span is taken, the larger one of two that are equal.

    Raises:
        NextbarError: there was no finite result.
    """
    model = task.model
    if not isinstance(model, RidgeConfig | ElasticNetConfig):
        raise ValueError(f"expected ridge or elastic net, found {model.kind}")
    scaled = _scaled(task)
    train = _Moments.of(scaled, task.windows, task.train_rows)
    validation = _Moments.of(scaled, task.windows, task.validation_rows)
    inputs = train.rows()
    chosen, constants = [], []
    for at in range(len(model.horizons)):
        scale = float(np.sqrt(train.squares[at] / train.count)) or 1.0
        # A sum of squares is split into what the inputs explain at best and the rest, which no candidate changes.
        target = inputs.target(train.cross[at] / scale)
        found = _ridge(model, inputs, target) if isinstance(model, RidgeConfig) else _elastic_net(model, inputs, target)
        candidates = [coefficients * scale for coefficients in found]
        if not all(np.isfinite(candidate).all() for candidate in candidates):
            raise NextbarError(f"{model.kind}: there was no finite result; check the bars for prices that jump")
        offsets = [train.label_mean[at] - float(train.mean @ candidate) for candidate in candidates]
        losses = [validation.loss(at, b, a) for b, a in zip(candidates, offsets, strict=True)]
        best = int(np.argmin(losses))
        chosen.append(candidates[best])
        constants.append(offsets[best])
    return Fit(
        linear_network(task, torch.from_numpy(np.stack(chosen)), torch.from_numpy(np.array(constants)), scaled=True)
    )


def _scaled(task: Task) -> Network:
    """A network of which only the scaling, fitted on the training span, is used."""
    with torch.random.fork_rng(devices=()):
        network = build_network(task.model)
    network.scaling.fit(torch.from_numpy(task.windows.features[task.train_rows]))
    return network.eval()


@dataclass(frozen=True, eq=False)
class _Inputs:
    """Rows [inputs, inputs] with the same centred second moments, a window's mean, as all windows have.

    ``matrix`` is sqrt(eigenvalues) times the eigenvectors, the directions in which nothing varies left out.
    """

    matrix: Floats

    def target(self, cross: Floats) -> Floats:
        """The label of each row, given the labels' centred moments [inputs] with the inputs."""
        found: Floats = (self.matrix @ cross) / np.square(self.matrix).sum(axis=1)
        return found


@dataclass(frozen=True, eq=False)
class _Moments:
    """Means and centred second moments of flattened windows and their labels.

    Attributes:
        count: windows.
        mean: of the inputs, [inputs].
        label_mean: [horizons].
        second: mean of products of inputs, [inputs, inputs].
        cross: mean of products of labels and inputs, [horizons, inputs].
        squares: sum of squared labels, not centred, [horizons].
    """

    count: int
    mean: Floats
    label_mean: Floats
    second: Floats
    cross: Floats
    squares: Floats

    @classmethod
    def of(cls, network: Network, windows: Windows, rows: Rows) -> _Moments:
        """Of the windows at the rows, as the network scales and flattens them."""
        inputs, horizons = windows.lookback * windows.features.shape[1], windows.labels.shape[1]
        total, label_total = np.zeros(inputs), np.zeros(horizons)
        second, cross, squares = np.zeros((inputs, inputs)), np.zeros((horizons, inputs)), np.zeros(horizons)
        with torch.inference_mode():
            for batch, labelled in batches_of(windows, rows, batch=_BATCH):
                x = network.state(batch).double().numpy()
                y = labelled.double().numpy()
                total += x.sum(axis=0)
                label_total += y.sum(axis=0)
                second += x.T @ x
                cross += y.T @ x
                squares += np.square(y).sum(axis=0)
        count = len(rows)
        mean, label_mean = total / count, label_total / count
        return cls(
            count=count,
            mean=mean,
            label_mean=label_mean,
            second=second / count - np.outer(mean, mean),
            cross=cross / count - np.outer(label_mean, mean),
            squares=squares,
        )

    def rows(self) -> _Inputs:
        """As few rows as there are directions in which the inputs vary."""
        values, vectors = np.linalg.eigh(self.second)
        kept = values > 1e-10 * max(values[-1], 1e-300)
        if not kept.any():
            return _Inputs(np.zeros((0, len(values))))
        return _Inputs(np.sqrt(values[kept])[:, None] * vectors[:, kept].T)

    def loss(self, at: int, coefficients: Floats, constant: float) -> float:
        """Mean squared error of constant + coefficients . input for the labels of a horizon."""
        error_mean = self.label_mean[at] - constant - float(self.mean @ coefficients)
        variance = self.squares[at] / self.count - self.label_mean[at] ** 2
        explained = 2.0 * float(self.cross[at] @ coefficients) - float(coefficients @ self.second @ coefficients)
        return float(error_mean**2 + variance - explained)


def _ridge(model: RidgeConfig, inputs: _Inputs, target: Floats) -> list[Floats]:
    """The coefficients at each candidate, the largest penalty first."""
    from sklearn.linear_model import Ridge

    penalties = sorted(RIDGE_PENALTIES, reverse=True) if model.alpha is None else [model.alpha]
    if not len(target):
        return [np.zeros(inputs.matrix.shape[1])]
    return [
        Ridge(alpha=alpha, fit_intercept=False, solver="cholesky").fit(inputs.matrix, target).coef_
        for alpha in penalties
    ]


def _elastic_net(model: ElasticNetConfig, inputs: _Inputs, target: Floats) -> list[Floats]:
    """The coefficients at each candidate, the largest penalty first, each found from the one before."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import enet_path

    if not len(target):
        return [np.zeros(inputs.matrix.shape[1])]
    rows = len(target)
    # scikit-learn divides the squared errors by the number of rows: as many times more make up for that.
    matrix, labels = inputs.matrix * np.sqrt(rows), target * np.sqrt(rows)
    least = float(np.abs(inputs.matrix.T @ target).max()) / model.l1_ratio
    alphas: Sequence[float] = [least * share for share in ELASTIC_NET_SHARES] if model.alpha is None else [model.alpha]
    if least == 0.0:
        return [np.zeros(matrix.shape[1])]
    with warnings.catch_warnings():
        # Coefficients that still move a little after so many sweeps are as good as any for a forecast.
        warnings.simplefilter("ignore", ConvergenceWarning)
        _, paths, _ = enet_path(
            matrix, labels, l1_ratio=model.l1_ratio, alphas=alphas, precompute=True, max_iter=_MOST_SWEEPS
        )
    return [np.ascontiguousarray(paths[:, column]) for column in range(paths.shape[1])]

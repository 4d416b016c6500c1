"""Heads: what a network forecasts, the loss that teaches it, and how its outputs become (forecast, lower, upper).

A head turns the body's state [batch, size] into outputs [batch, outputs]. All heads forecast the log return over the
next ``horizon`` bars with an interval of 80% nominal coverage, lower <= forecast <= upper.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.networks.aligned import AlignedLinear
from models.networks.scaling import TargetScaling

LOWER_LEVEL, UPPER_LEVEL = 0.1, 0.9


class Head(nn.Module, ABC):
    """The last layer of a network."""

    outputs: int

    def __init__(self, size: int) -> None:
        super().__init__()
        self.target = TargetScaling()
        self.project = AlignedLinear(size, self.outputs)

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """State [batch, size] -> raw outputs [batch, outputs]."""
        outputs: torch.Tensor = self.project(state)
        return outputs

    def fit(self, labels: torch.Tensor) -> None:
        """Set the buffers that depend on the labels [n] of the training span, in log returns."""
        self.target.fit(labels)

    @abstractmethod
    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss, a scalar, of outputs [batch, outputs] against labels [batch] in log returns."""

    @abstractmethod
    def forecast(self, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs [batch, outputs] -> [batch, 3]: forecast, lower, upper in log returns."""


class QuantileHead(Head):
    """The 10%, 50% and 90% quantiles by pinball loss.

    The outputs are the median and, through softplus, its distances to the outer quantiles: they cannot cross.
    """

    outputs = 3

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.register_buffer("levels", torch.tensor([0.5, LOWER_LEVEL, UPPER_LEVEL]), persistent=False)
        # Start from the quantiles of a unit normal distribution: median 0, distances 1.2816.
        start = math.log(math.expm1(1.2816))
        with torch.no_grad():
            self.project.bias.copy_(torch.tensor([0.0, start, start]))

    levels: torch.Tensor

    def _quantiles(self, outputs: torch.Tensor) -> torch.Tensor:
        """Median, lower and upper in scaled units, [batch, 3]."""
        centre = outputs[:, 0]
        distances = functional.softplus(outputs[:, 1:])
        return torch.stack([centre, centre - distances[:, 0], centre + distances[:, 1]], dim=1)

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Pinball: max(q e, (q - 1) e) with e = label - quantile, in scaled units, averaged over the three."""
        errors = self.target(labels).unsqueeze(1) - self._quantiles(outputs)  # [batch, 3]
        return torch.maximum(self.levels * errors, (self.levels - 1.0) * errors).mean()

    def forecast(self, outputs: torch.Tensor) -> torch.Tensor:
        """The median and the 10% and 90% quantiles."""
        return self.target.inverse(self._quantiles(outputs))


class ResidualHead(Head):
    """A head that forecasts one number; its interval is the 10% and 90% residual quantiles of the validation span."""

    residuals: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.register_buffer("residuals", torch.zeros(2))

    @abstractmethod
    def centre(self, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs [batch, outputs] -> forecast [batch] in log returns."""

    def calibrate(self, outputs: torch.Tensor, labels: torch.Tensor) -> None:
        """Set the residual quantiles; the interval always holds the forecast itself."""
        residuals = (labels - self.centre(outputs)).double().numpy()
        lower, upper = np.quantile(residuals, [LOWER_LEVEL, UPPER_LEVEL]).tolist()
        self.residuals.copy_(torch.tensor([min(lower, 0.0), max(upper, 0.0)]))

    def forecast(self, outputs: torch.Tensor) -> torch.Tensor:
        """The centre, and the centre shifted by the two residual quantiles."""
        centre = self.centre(outputs)
        return torch.stack([centre, centre + self.residuals[0], centre + self.residuals[1]], dim=1)


class PointHead(ResidualHead):
    """One number by Huber loss, whose corner is at one standard deviation of the labels."""

    outputs = 1

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Huber loss (delta 1) in scaled units."""
        return functional.huber_loss(outputs[:, 0], self.target(labels))

    def centre(self, outputs: torch.Tensor) -> torch.Tensor:
        """The output in log returns."""
        return self.target.inverse(outputs[:, 0])


class DirectionHead(ResidualHead):
    """Down, flat or up by cross entropy.

    The forecast is the sum over the classes of probability times the class's mean training label.

    Args:
        size: of the state.
        flat: the largest move, in log returns, that is neither down nor up; the middle third of the training labels,
            if None.
    """

    outputs = 3
    thresholds: torch.Tensor
    class_means: torch.Tensor

    def __init__(self, size: int, *, flat: float | None = None) -> None:
        super().__init__(size)
        self._flat = flat
        self.register_buffer("thresholds", torch.zeros(2))
        self.register_buffer("class_means", torch.zeros(3))

    def fit(self, labels: torch.Tensor) -> None:
        """Set the thresholds, and the mean label of each class; a class without labels has mean 0."""
        super().fit(labels)
        thirds = np.quantile(labels.double().numpy(), [1 / 3, 2 / 3])
        self.thresholds.copy_(torch.from_numpy(thirds if self._flat is None else np.array([-self._flat, self._flat])))
        classes = self._classes(labels)
        means = [labels[classes == k].double().mean() if bool((classes == k).any()) else 0.0 for k in range(3)]
        self.class_means.copy_(torch.tensor(means))

    def _classes(self, labels: torch.Tensor) -> torch.Tensor:
        """0 at or below the lower threshold, 2 above the upper one, 1 between them; int64 [batch]."""
        return torch.bucketize(labels.contiguous(), self.thresholds)

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross entropy in nats."""
        return functional.cross_entropy(outputs, self._classes(labels))

    def probabilities(self, outputs: torch.Tensor) -> torch.Tensor:
        """Outputs [batch, 3] -> probabilities of down, flat and up."""
        return outputs.softmax(dim=1)

    def centre(self, outputs: torch.Tensor) -> torch.Tensor:
        """Expected class mean under the predicted probabilities."""
        # A sum of products, not a matrix-vector product: its order must not depend on the batch.
        return (self.probabilities(outputs) * self.class_means).sum(dim=1)


HEADS: dict[str, type[Head]] = {"quantile": QuantileHead, "point": PointHead, "direction": DirectionHead}

"""Networks: plain modules from windows to forecasts. A family is one file with a body; the rest is shared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import nn

from engine.config import LstmConfig
from models.networks.heads import HEADS, Head
from models.networks.lstm import Lstm
from models.networks.scaling import FeatureScaling


class Body(Protocol):
    """What a family provides: a module from scaled windows [batch, lookback, features] to a state [batch, size].

    Its value for a window depends on that window alone: no batch statistics, no state kept between windows.
    """

    size: int

    def __call__(self, windows: torch.Tensor) -> torch.Tensor: ...


class Network(nn.Module):
    """Scaling, body and head.

    Args:
        features: number of features of a window.
        body: from scaled windows to a state.
        head: from the state to outputs.
    """

    def __init__(self, features: int, body: Body, head: Head) -> None:
        super().__init__()
        self.scaling = FeatureScaling(features)
        self.body = cast(nn.Module, body)
        self.head = head

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows [batch, lookback, features] in the features' own units -> the head's raw outputs."""
        outputs: torch.Tensor = self.head(self.body(self.scaling(windows)))
        return outputs

    def loss(self, windows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss, a scalar, against labels [batch] in log returns."""
        return self.head.loss(self(windows), labels)

    def forecast(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows [batch, lookback, features] -> [batch, 3]: forecast, lower, upper in log returns."""
        return self.head.forecast(self(windows))

    def fit_scaling(self, rows: torch.Tensor, labels: torch.Tensor) -> None:
        """Set every buffer that depends on data, from the training span alone.

        Args:
            rows: feature rows of the training span's decision bars, [n, features], finite.
            labels: their labels [n] in log returns.
        """
        self.scaling.fit(rows)
        self.head.fit(labels)


_BODIES: dict[str, Callable[[LstmConfig], Body]] = {"lstm": Lstm}


def build_network(config: LstmConfig) -> Network:
    """A network of the configured kind and head, freshly initialised from torch's global generator."""
    body = _BODIES[config.kind](config)
    return Network(len(config.features), body, HEADS[config.head](body.size))

"""Networks: plain modules from windows to forecasts. A family is one file with a body; the rest is shared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

import torch
from torch import nn

from engine.model_sections import BoostingConfig, ModelSection, WindowModel
from models.networks.convolution import Cnn, CnnLstm, Tcn
from models.networks.heads import HEADS, DirectionHead, Head
from models.networks.linear import Flat
from models.networks.mlp import Mlp
from models.networks.recurrent import Gru, Lstm, Rnn
from models.networks.scaling import FeatureScaling
from models.networks.transformer import Transformer


class Body(Protocol):
    """What a family provides: a module from scaled windows [batch, lookback, features] to a state [batch, size].

    Its value for a window depends on that window alone: no batch statistics, no state kept between windows.

    Attributes:
        size: of the state.
        multiply_adds: of its matrix products and convolutions, for one window.
    """

    size: int
    multiply_adds: int

    def __call__(self, windows: torch.Tensor) -> torch.Tensor: ...


class Network(nn.Module):
    """Scaling, body, and a head for each horizon.

    Args:
        features: number of features of a window.
        body: from scaled windows to a state.
        heads: from the state to outputs, one a horizon, the traded one first.
    """

    def __init__(self, features: int, body: Body, heads: Sequence[Head]) -> None:
        super().__init__()
        self.scaling = FeatureScaling(features)
        self.body = cast(nn.Module, body)
        self.heads = nn.ModuleList(heads)

    def head(self, at: int = 0) -> Head:
        """The head of a horizon, by its place in the model's ``horizons``."""
        return cast(Head, self.heads[at])

    @property
    def multiply_adds(self) -> int:
        """Multiplications with an addition for one window, in matrix products and convolutions: half of its FLOPs.

        What is done number by number (scaling, gates, activations, normalisation) does not count, as is usual.
        """
        heads = sum(self.head(at).project.weight.numel() for at in range(len(self.heads)))
        return cast(Body, self.body).multiply_adds + heads

    @property
    def learned(self) -> int:
        """Numbers that were learned."""
        return sum(parameter.numel() for parameter in self.parameters())

    def state(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows [batch, lookback, features] in the features' own units -> the body's state [batch, size]."""
        state: torch.Tensor = self.body(self.scaling(windows))
        return state

    def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Windows [batch, lookback, features] -> the raw outputs of each head."""
        state = self.state(windows)
        return tuple(head(state) for head in self.heads)

    def loss(self, windows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean loss over the horizons, a scalar, against labels [batch, horizons] in log returns."""
        losses = [self.head(at).loss(outputs, labels[:, at]) for at, outputs in enumerate(self(windows))]
        return torch.stack(losses).mean() if len(losses) > 1 else losses[0]

    def forecast(self, windows: torch.Tensor, at: int = 0) -> torch.Tensor:
        """Windows [batch, lookback, features] -> [batch, 3]: forecast, lower, upper in log returns, of a horizon."""
        head = self.head(at)
        return head.forecast(head(self.state(windows)))

    def classes(self, windows: torch.Tensor, at: int = 0) -> torch.Tensor:
        """Windows [batch, lookback, features] -> [batch, 6]: what ``forecast`` gives, and the classes' probabilities.

        The last three are those of down, flat and up.

        Raises:
            TypeError: the head is no ``DirectionHead``.
        """
        head = self.head(at)
        if not isinstance(head, DirectionHead):
            raise TypeError(f"expected a direction head, found {type(head).__name__}")
        outputs = head(self.state(windows))
        return torch.cat([head.forecast(outputs), head.probabilities(outputs)], dim=1)

    def fit_scaling(self, rows: torch.Tensor, labels: torch.Tensor) -> None:
        """Set every buffer that depends on data, from the training span alone.

        Args:
            rows: feature rows of the training span's decision bars, [n, features], finite.
            labels: their labels [n, horizons] in log returns.
        """
        self.scaling.fit(rows)
        for at in range(len(self.heads)):
            self.head(at).fit(labels[:, at])

    def texts(self) -> Mapping[str, bytes]:
        """What is kept beside the tensors, file name -> content; nothing, unless a family says otherwise."""
        return {}

    def load_texts(self, texts: Mapping[str, bytes]) -> None:
        """Take what ``texts`` gave."""


# Kind -> the body of its section. A section of a family that is fitted otherwise than by gradients has one as well.
BODIES: dict[str, Callable[[Any], Body]] = {
    "rnn": Rnn,
    "gru": Gru,
    "lstm": Lstm,
    "cnn": Cnn,
    "tcn": Tcn,
    "cnn_lstm": CnnLstm,
    "transformer": Transformer,
    "mlp": Mlp,
    "ridge": Flat,
    "elastic_net": Flat,
    "ar": Flat,
    "arima": Flat,
    "ets": Flat,
    "zero": Flat,
    "mean": Flat,
    "last_return": Flat,
}


def build_network(config: ModelSection) -> Network:
    """A network of the configured kind and head, freshly initialised from torch's global generator."""
    if isinstance(config, BoostingConfig):
        from models.networks.boosting import BoostedNetwork  # made of a Network, and so not above

        return BoostedNetwork(config)
    body = BODIES[config.kind](config)
    return Network(len(config.features), body, [_head(config, body.size) for _ in config.horizons])


def _head(config: ModelSection, size: int) -> Head:
    if config.head == "direction" and isinstance(config, WindowModel):
        return DirectionHead(size, flat=None if config.flat_bps is None else config.flat_bps * 1e-4)
    return HEADS[config.head](size)

"""Recurrent networks read the window bar by bar, and start from zero at its first one: their memory is the window."""

from __future__ import annotations

import torch
from torch import nn

from engine.model_sections import GruConfig, LstmConfig, RnnConfig
from models.networks.aligned import AlignedLinear, AlignedRecurrent


def stacked_multiply_adds(inputs: int, hidden: int, *, layers: int, gates: int, directions: int, lookback: int) -> int:
    """Multiply-adds of recurrent layers over one window: each gate has a matrix for the input and one for the state."""
    first = gates * hidden * (inputs + hidden)
    others = gates * hidden * (directions * hidden + hidden)
    return lookback * directions * (first + (layers - 1) * others)


def dropout_between(layers: int, dropout: float) -> float:
    """What torch takes as dropout between layers: none with a single one, of which it would warn."""
    return dropout if layers > 1 else 0.0


class _LastState(nn.Module):
    """A stack of recurrent layers whose last hidden state is what is known at the decision bar."""

    recurrent: AlignedRecurrent

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Scaled windows [batch, lookback, features] -> last hidden state of the top layer, [batch, hidden]."""
        states: torch.Tensor = self.recurrent(windows)  # [batch, lookback, hidden]
        return states[:, -1]


class Rnn(_LastState):
    """The plain recurrent network: h = tanh(W x + U h + b) (Elman 1990, "Finding structure in time").

    Args:
        config: features, lookback, hidden size, layers and dropout (between layers).
    """

    def __init__(self, config: RnnConfig) -> None:
        super().__init__()
        inputs = len(config.features)
        self.size = config.hidden
        self.multiply_adds = stacked_multiply_adds(
            inputs, config.hidden, layers=config.layers, gates=1, directions=1, lookback=config.lookback
        )
        self.recurrent = AlignedRecurrent(
            nn.RNN(
                inputs,
                config.hidden,
                num_layers=config.layers,
                dropout=dropout_between(config.layers, config.dropout),
                batch_first=True,
            )
        )


class Gru(_LastState):
    """Gated recurrent units (Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder").

    Args:
        config: features, lookback, hidden size, layers and dropout (between layers).
    """

    def __init__(self, config: GruConfig) -> None:
        super().__init__()
        inputs = len(config.features)
        self.size = config.hidden
        self.multiply_adds = stacked_multiply_adds(
            inputs, config.hidden, layers=config.layers, gates=3, directions=1, lookback=config.lookback
        )
        self.recurrent = AlignedRecurrent(
            nn.GRU(
                inputs,
                config.hidden,
                num_layers=config.layers,
                dropout=dropout_between(config.layers, config.dropout),
                batch_first=True,
            )
        )


class Lstm(nn.Module):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), in one or both directions, with or without attention.

    Both directions read the window, and nothing but it: what comes after the decision bar is not in it.

    Args:
        config: features, lookback, hidden size, layers, dropout (between layers), bidirectional and pooling.
    """

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        inputs, directions = len(config.features), 2 if config.bidirectional else 1
        width = config.hidden * directions
        self.recurrent = AlignedRecurrent(
            nn.LSTM(
                inputs,
                config.hidden,
                num_layers=config.layers,
                dropout=dropout_between(config.layers, config.dropout),
                batch_first=True,
                bidirectional=config.bidirectional,
            )
        )
        self.attention = Attention(width, config.lookback) if config.pooling == "attention" else None
        self.size = width if self.attention is None else self.attention.size
        self.multiply_adds = stacked_multiply_adds(
            inputs, config.hidden, layers=config.layers, gates=4, directions=directions, lookback=config.lookback
        ) + (0 if self.attention is None else self.attention.multiply_adds)
        self._hidden, self._bidirectional = config.hidden, config.bidirectional

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Scaled windows [batch, lookback, features] -> what is known at the decision bar, [batch, size].

        It is the last hidden state of the top layer; the backward direction's last one is that of the first bar.
        """
        states: torch.Tensor = self.recurrent(windows)  # [batch, lookback, directions * hidden]
        last = states[:, -1]
        if self._bidirectional:
            last = torch.cat([last[:, : self._hidden], states[:, 0, self._hidden :]], dim=1)
        if self.attention is None:
            return last
        pooled: torch.Tensor = self.attention(states, last)
        return pooled


class Attention(nn.Module):
    """The last state beside a mean of all states, weighted by how well each one fits the last.

    Luong, Pham & Manning 2015, "Effective approaches to attention-based neural machine translation", "general" score:
    softmax over the window of state . W last.

    Args:
        width: size of a state.
        lookback: states of a window.
    """

    def __init__(self, width: int, lookback: int) -> None:
        super().__init__()
        self.size = 2 * width
        self.multiply_adds = width * width + 2 * lookback * width
        self.query = AlignedLinear(width, width, bias=False)

    def forward(self, states: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """States [batch, lookback, width] and the last one [batch, width] -> [batch, 2 * width]."""
        # Sums of products, not matrix products, which round by where a window lies in its batch.
        scores = (states * self.query(last).unsqueeze(1)).sum(dim=2)  # [batch, lookback]
        mean = (states * scores.softmax(dim=1).unsqueeze(2)).sum(dim=1)  # [batch, width]
        return torch.cat([mean, last], dim=1)

"""Convolutional networks. All convolutions are causal: what they give at a bar comes from that bar and those before it.

Where a convolution would reach back over the window's first bar it sees zeros, the mean of a scaled feature.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from engine.model_sections import CnnConfig, CnnLstmConfig, TcnConfig
from models.networks.aligned import AlignedRecurrent
from models.networks.recurrent import dropout_between, stacked_multiply_adds


class CausalConvolution(nn.Module):
    """A convolution over time whose output at a bar depends on that bar and the ``kernel - 1`` before it.

    Args:
        inputs, outputs: channels.
        kernel: bars that an output is made of.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int) -> None:
        super().__init__()
        self.reach = kernel - 1
        self.convolution = nn.Conv1d(inputs, outputs, kernel)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, bars] -> [batch, outputs, bars]."""
        convolved: torch.Tensor = self.convolution(functional.pad(series, (self.reach, 0)))
        return convolved


class CausalStack(nn.Module):
    """Causal convolutions one after the other, each with ReLU and dropout.

    Args:
        inputs, channels: channels before, and after each convolution.
        kernel, layers, dropout: of the stack.
    """

    def __init__(self, inputs: int, channels: int, *, kernel: int, layers: int, dropout: float) -> None:
        super().__init__()
        widths = [inputs, *[channels] * layers]
        self.layers = nn.ModuleList(CausalConvolution(a, b, kernel=kernel) for a, b in pairwise(widths))
        self.dropout = nn.Dropout(dropout)
        self.multiply_adds_a_bar = sum(a * b * kernel for a, b in pairwise(widths))

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, bars] -> [batch, channels, bars]."""
        for layer in self.layers:
            series = self.dropout(functional.relu(layer(series)))
        return series


class Cnn(nn.Module):
    """A stack of causal convolutions; its state is what they give at the last bar, beside their mean over the window.

    The last bar alone would know of the last ``layers * (kernel - 1) + 1`` bars only.

    Args:
        config: features, lookback, channels, kernel, layers and dropout.
    """

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        self.size = 2 * config.channels
        self.stack = CausalStack(
            len(config.features),
            config.channels,
            kernel=config.kernel,
            layers=config.layers,
            dropout=config.dropout,
        )
        self.multiply_adds = config.lookback * self.stack.multiply_adds_a_bar

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Scaled windows [batch, lookback, features] -> [batch, 2 * channels]."""
        series = self.stack(windows.transpose(1, 2))  # [batch, channels, lookback]
        return torch.cat([series[:, :, -1], series.mean(dim=2)], dim=1)


class Tcn(nn.Module):
    """A temporal convolutional network; its state is what the last block gives at the last bar.

    Bai, Kolter & Koltun 2018, "An empirical evaluation of generic convolutional and recurrent networks for sequence
    modeling", without weight normalisation. The dilation doubles from block to block, so that the last bar knows of
    ``1 + 2 * (kernel - 1) * (2 ** layers - 1)`` bars. Of what a block gives, the last bar of the next one needs every
    second bar only: the others are left out, which makes the next block's dilation.

    Args:
        config: features, lookback, channels, kernel, layers (blocks) and dropout.
    """

    def __init__(self, config: TcnConfig) -> None:
        super().__init__()
        self.size = config.channels
        widths = list(pairwise([len(config.features), *[config.channels] * config.layers]))
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, kernel=config.kernel, dropout=config.dropout) for a, b in widths
        )
        self.multiply_adds, bars = 0, config.lookback
        for a, b in widths:
            self.multiply_adds += bars * ((a * b + b * b) * config.kernel + (a * b if a != b else 0))
            bars = (bars + 1) // 2

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Scaled windows [batch, lookback, features] -> [batch, channels]."""
        series = windows.transpose(1, 2)  # [batch, channels, bars]
        for number, block in enumerate(self.blocks):
            if number:
                series = series[:, :, (series.shape[2] - 1) % 2 :: 2]  # every second one, the last bar among them
            series = block(series)
        return series[:, :, -1]


class ResidualBlock(nn.Module):
    """Two causal convolutions, each with ReLU and dropout, added to what went in.

    Args:
        inputs, outputs: channels; where they differ, what went in is projected.
        kernel, dropout: of both convolutions.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, dropout: float) -> None:
        super().__init__()
        self.first = CausalConvolution(inputs, outputs, kernel=kernel)
        self.second = CausalConvolution(outputs, outputs, kernel=kernel)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        """[batch, inputs, bars] -> [batch, outputs, bars]."""
        inner = self.dropout(functional.relu(self.first(series)))
        inner = self.dropout(functional.relu(self.second(inner)))
        return functional.relu(inner + (series if self.shortcut is None else self.shortcut(series)))


class CnnLstm(nn.Module):
    """Causal convolutions find short patterns, an LSTM reads them bar by bar; its last hidden state is the state.

    Args:
        config: features, lookback; channels, kernel and convolutions; hidden, layers of the LSTM; dropout of both.
    """

    def __init__(self, config: CnnLstmConfig) -> None:
        super().__init__()
        self.size = config.hidden
        self.stack = CausalStack(
            len(config.features),
            config.channels,
            kernel=config.kernel,
            layers=config.convolutions,
            dropout=config.dropout,
        )
        self.recurrent = AlignedRecurrent(
            nn.LSTM(
                config.channels,
                config.hidden,
                num_layers=config.layers,
                dropout=dropout_between(config.layers, config.dropout),
                batch_first=True,
            )
        )
        self.multiply_adds = config.lookback * self.stack.multiply_adds_a_bar + stacked_multiply_adds(
            config.channels, config.hidden, layers=config.layers, gates=4, directions=1, lookback=config.lookback
        )

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Scaled windows [batch, lookback, features] -> [batch, hidden]."""
        series = self.stack(windows.transpose(1, 2))  # [batch, channels, lookback]
        states: torch.Tensor = self.recurrent(series.transpose(1, 2))  # [batch, lookback, hidden]
        return states[:, -1]

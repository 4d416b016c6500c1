"""The multilayer perceptron: fully connected layers, to which the window is one row of numbers."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from engine.model_sections import MlpConfig
from models.networks.aligned import AlignedLinear


class Mlp(nn.Module):
    """Fully connected layers over the flattened window, each with ReLU and dropout.

    Args:
        config: features, lookback, hidden (units of a layer), layers and dropout.
    """

    def __init__(self, config: MlpConfig) -> None:
        super().__init__()
        self.size = config.hidden
        widths = [config.lookback * len(config.features), *[config.hidden] * config.layers]
        self.layers = nn.ModuleList(AlignedLinear(a, b) for a, b in pairwise(widths))
        self.dropout = nn.Dropout(config.dropout)
        self.multiply_adds = sum(a * b for a, b in pairwise(widths))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Scaled windows [batch, lookback, features] -> [batch, hidden]."""
        state = windows.flatten(1)
        for layer in self.layers:
            state = self.dropout(functional.relu(layer(state)))
        return state

"""Linear models: the body only lays the window flat, and the head's projection holds the coefficients."""

from __future__ import annotations

import torch
from torch import nn

from engine.model_sections import ModelSection


class Flat(nn.Module):
    """The window as one row, oldest bar first.

    Args:
        config: features and lookback.
    """

    def __init__(self, config: ModelSection) -> None:
        super().__init__()
        self.size = config.lookback * len(config.features)
        self.multiply_adds = 0

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Scaled windows [batch, lookback, features] -> [batch, lookback * features]."""
        return windows.flatten(1)

"""The LSTM: recurrent over the window, its last hidden state is what it knows at the decision bar."""

from __future__ import annotations

import torch
from torch import nn

from engine.model_sections import LstmConfig


class Lstm(nn.Module):
    """A stack of LSTM layers, started from zero at each window's first bar: its memory is the window.

    Args:
        config: features, hidden size, layers and dropout (between layers, so none with a single layer).
    """

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.size = config.hidden
        self.recurrent = nn.LSTM(
            input_size=len(config.features),
            hidden_size=config.hidden,
            num_layers=config.layers,
            dropout=config.dropout if config.layers > 1 else 0.0,
            batch_first=True,
        )

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Scaled windows [batch, lookback, features] -> last hidden state of the top layer, [batch, hidden]."""
        states, _ = self.recurrent(windows)  # [batch, lookback, hidden]
        last: torch.Tensor = states[:, -1]
        return last

"""The Transformer: every bar of the window looks at every other one; no bar outside of it is there to be seen."""

from __future__ import annotations

import math

import torch
from torch import nn

from engine.model_sections import TransformerConfig
from models.networks.aligned import AlignedLinear

_WIDENING = 2  # of the layers' inner part; 4 in the paper, for widths of 512


class Transformer(nn.Module):
    """A small encoder (Vaswani et al. 2017, "Attention is all you need"); its state is that of the last bar.

    Normalised before each part rather than after it, which trains without a warm-up (Xiong et al. 2020, "On layer
    normalization in the Transformer architecture").

    Args:
        config: features, lookback, hidden (the width), heads, layers and dropout.
    """

    positions: torch.Tensor

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.size = config.hidden
        self.embed = AlignedLinear(len(config.features), config.hidden)
        self.register_buffer("positions", positional_encoding(config.lookback, config.hidden), persistent=False)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(
                config.hidden,
                config.heads,
                dim_feedforward=_WIDENING * config.hidden,
                dropout=config.dropout,
                batch_first=True,
                norm_first=True,
            ),
            config.layers,
            norm=nn.LayerNorm(config.hidden),
            enable_nested_tensor=False,
        )
        projections = (4 + 2 * _WIDENING) * config.hidden**2  # query, key, value, output; in and out of the inner part
        attention = 2 * config.lookback * config.hidden  # a bar's scores, and the mean that they weigh
        self.multiply_adds = config.lookback * (
            len(config.features) * config.hidden + config.layers * (projections + attention)
        )

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Scaled windows [batch, lookback, features] -> [batch, hidden]."""
        states: torch.Tensor = self.encoder(self.embed(windows) + self.positions)  # [batch, lookback, hidden]
        return states[:, -1]


def positional_encoding(lookback: int, width: int) -> torch.Tensor:
    """Sines and cosines of the age of each bar, [lookback, width]; the decision bar, the last one, has age 0.

    Vaswani et al. 2017, section 3.5: frequencies fall from 1 to 1/10000. Ages rather than positions, so that the newest
    bars look the same whatever the lookback.
    """
    ages = torch.arange(lookback - 1, -1, -1, dtype=torch.float64).unsqueeze(1)  # [lookback, 1]
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2, dtype=torch.float64) / width)
    encoding = torch.zeros(lookback, width, dtype=torch.float64)
    encoding[:, 0::2] = torch.sin(ages * frequencies)
    encoding[:, 1::2] = torch.cos(ages * frequencies[: width // 2])
    return encoding.float()

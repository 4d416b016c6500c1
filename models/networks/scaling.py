"""Scaling as part of the network: buffers, fitted on the training span and saved with the weights."""

from __future__ import annotations

import torch
from torch import nn

# A standardised input beyond this says only "far out"; unclipped, one wild bar would saturate the whole window.
CLIP = 8.0


class FeatureScaling(nn.Module):
    """Standardises each feature: (value - mean) / scale, clipped to +-8."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def fit(self, rows: torch.Tensor) -> None:
        """Set mean and scale from rows [n, features] of the training span; a constant feature gets scale 1."""
        exact = rows.double()
        mean = exact.mean(dim=0)
        deviation = (exact - mean).square().mean(dim=0).sqrt()
        constant = deviation <= 1e-12 * mean.abs()
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(constant, torch.ones_like(deviation), deviation))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows [batch, lookback, features] -> the same shape, standardised."""
        return ((windows - self.mean) / self.scale).clamp(-CLIP, CLIP)


class TargetScaling(nn.Module):
    """Divides labels by their root mean square, so that zero stays zero and the network's outputs are near one."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))

    def fit(self, labels: torch.Tensor) -> None:
        """Set the scale from the labels [n] of the training span; labels that are all zero get scale 1."""
        scale = labels.double().square().mean().sqrt()
        self.scale.copy_(scale if scale > 0.0 else torch.ones_like(scale))

    def forward(self, labels: torch.Tensor) -> torch.Tensor:
        """Log returns -> scaled units."""
        return labels / self.scale

    def inverse(self, scaled: torch.Tensor) -> torch.Tensor:
        """Scaled units -> log returns."""
        return scaled * self.scale

"""The training curve."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EpochLosses:
    """A point of the training curve; losses are the head's, averaged over the windows of the span."""

    epoch: int
    train_loss: float
    validation_loss: float


def best_epoch(curve: tuple[EpochLosses, ...]) -> int:
    """The first epoch with the lowest validation loss; 0 where there are no epochs."""
    finite = [point for point in curve if point.validation_loss < float("inf")]
    return min(finite, key=lambda point: point.validation_loss).epoch if finite else 0

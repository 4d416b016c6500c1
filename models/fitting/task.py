"""What every way of fitting is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from engine.config import TrainingConfig
from engine.model_sections import ModelSection
from models.curve import EpochLosses, best_epoch
from models.networks import Network
from models.networks.heads import ResidualHead
from models.windows import Rows, Windows, batches_of

_BATCH = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A model to fit.

    Attributes:
        model: the section of the kind.
        windows: windows and labels of all symbols.
        train_rows, validation_rows: decision bars of the two spans, at least one each, with known labels.
        training: seed, epochs, patience, batch, learning rate, and Lightning's accelerator and devices.
        start: a fitted network of the same section to go on from, where the fit is by gradients.
        progress: show a progress bar on stderr, if that is a terminal.
    """

    model: ModelSection
    windows: Windows
    train_rows: Rows
    validation_rows: Rows
    training: TrainingConfig
    start: Network | None = None
    progress: bool = False


@dataclass(frozen=True, eq=False)
class Fit:
    """A fitted network.

    Attributes:
        network: on the CPU, in evaluation mode; where it was fitted by gradients, with the weights of the best epoch.
        curve: one point an epoch, from epoch 1 on; empty where there are no epochs.
    """

    network: Network
    curve: tuple[EpochLosses, ...] = ()

    @property
    def best_epoch(self) -> int:
        """The first epoch with the lowest validation loss; 0 where there are no epochs."""
        return best_epoch(self.curve)


def calibrate_residuals(network: Network, windows: Windows, validation_rows: Rows) -> None:
    """Set the intervals of heads that forecast one number from their errors on the validation span."""
    heads = {at: head for at in range(len(network.heads)) if isinstance(head := network.head(at), ResidualHead)}
    if not heads:
        return
    with torch.inference_mode():
        batches = [(network(batch), labels) for batch, labels in batches_of(windows, validation_rows, batch=_BATCH)]
        for at, head in heads.items():
            outputs = torch.cat([outputs[at] for outputs, _ in batches])
            head.calibrate(outputs, torch.cat([labels[:, at] for _, labels in batches]))

"""Fitting a network by gradients with Lightning: the only module of this room that imports it.

Reproducible: one seed sets the first weights, dropout and the order of batches, so that the same seed, bars, machine
and thread count give the same weights to the bit.
"""

from __future__ import annotations

import csv
import logging
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
import torch.utils.deterministic
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.seed import isolate_rng
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch.utils.data import DataLoader

from engine.config import TrainingConfig
from engine.errors import ConfigError, NextbarError
from models.curve import EpochLosses
from models.fitting.task import Fit, Task, calibrate_residuals
from models.networks import Network, build_network
from models.windows import Batch, Rows, Windows, batches_of

GRADIENT_CLIP = 1.0
_VALIDATION_BATCH = 1024


def fit(task: Task) -> Fit:
    """Fit a network on the training rows and keep the weights with the lowest validation loss.

    Raises:
        ConfigError: Lightning cannot use that accelerator or those devices.
        NextbarError: the validation loss was never a finite number.
        KeyboardInterrupt: on Ctrl-C, as everywhere; nothing is left behind.
    """
    return fit_network(lambda: build_network(task.model), task)


def fit_network(build: Callable[[], Network], task: Task) -> Fit:
    """``fit`` of any network; ``build`` draws its first weights from torch's global generator."""
    windows, config = task.windows, task.training
    with isolate_rng(), _quiet(), _global_settings_restored(), tempfile.TemporaryDirectory() as folder:
        network = prepared_network(build, windows, task.train_rows, seed=config.seed)
        if task.start is not None:
            _start_from(task.start, network)
        module = NetworkModule(network, learning_rate=config.learning_rate)
        data = WindowsModule(windows, train_rows=task.train_rows, validation_rows=task.validation_rows, config=config)
        trainer = _trainer(config, Path(folder), progress=task.progress and sys.stderr.isatty())
        with _interrupt_passed_on():
            trainer.fit(module, datamodule=data)
        curve = _read_curve(Path(folder) / "metrics.csv")
        finite = [point for point in curve if point.validation_loss < float("inf")]
        if not finite:
            raise NextbarError("training failed: the loss was never a finite number; lower training.learning_rate")
        network = network.cpu().eval()
        calibrate_residuals(network, windows, task.validation_rows)
    return Fit(network, curve)


def _start_from(other: Network, network: Network) -> None:
    """Take over what another network has learned; the scaling stays that of this training span."""
    learned = dict(other.named_parameters())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(learned[name])


def prepared_network(build: Callable[[], Network], windows: Windows, train_rows: Rows, *, seed: int) -> Network:
    """A fresh network from the seed, its scaling fitted on the training rows; seeds all global generators."""
    lightning.seed_everything(seed, workers=True, verbose=False)
    network = build()
    network.fit_scaling(torch.from_numpy(windows.features[train_rows]), torch.from_numpy(windows.labels[train_rows]))
    return network


def training_batches(windows: Windows, train_rows: Rows, config: TrainingConfig) -> DataLoader[Batch]:
    """The batches that ``fit`` draws, in its order: shuffled anew at each pass from the seed."""
    return batches_of(windows, train_rows, batch=config.batch, seed=config.seed)


class NetworkModule(lightning.LightningModule):
    """Any network of this room, wrapped for Lightning's Trainer."""

    def __init__(self, network: Network, *, learning_rate: float) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate

    def training_step(self, batch: Batch, batch_index: int) -> torch.Tensor:
        """The loss of a batch of (windows, labels)."""
        return self._logged_loss(batch, "train_loss")

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Logs the loss of a batch of (windows, labels)."""
        self._logged_loss(batch, "validation_loss")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW with its usual weight decay."""
        return build_optimizer(self.network, learning_rate=self.learning_rate)

    def _logged_loss(self, batch: Batch, name: str) -> torch.Tensor:
        windows, labels = batch
        loss = self.network.loss(windows, labels)
        spread = self.trainer.world_size > 1
        self.log(name, loss, on_step=False, on_epoch=True, batch_size=len(labels), sync_dist=spread)
        return loss


def build_optimizer(network: Network, *, learning_rate: float) -> torch.optim.Optimizer:
    """The optimizer that ``fit`` uses."""
    return torch.optim.AdamW(network.parameters(), lr=learning_rate)


class WindowsModule(lightning.LightningDataModule):
    """The batches of the training and validation rows."""

    def __init__(self, windows: Windows, *, train_rows: Rows, validation_rows: Rows, config: TrainingConfig) -> None:
        super().__init__()
        self.windows = windows
        self.train_rows = train_rows
        self.validation_rows = validation_rows
        self.config = config

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches."""
        return training_batches(self.windows, self.train_rows, self.config)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches in order."""
        return batches_of(self.windows, self.validation_rows, batch=_VALIDATION_BATCH)


class BestWeights(lightning.Callback):
    """Keeps a copy of the weights with the lowest validation loss in memory, and restores it when training ends.

    Lightning's own checkpoints are pickles on disk, which nextbar neither writes nor reads.
    """

    def __init__(self) -> None:
        self._lowest = float("inf")
        self._weights: dict[str, torch.Tensor] | None = None

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Copy the weights if they are the best so far."""
        loss = float(trainer.callback_metrics["validation_loss"])
        if loss < self._lowest:
            self._lowest = loss
            self._weights = {name: value.detach().clone() for name, value in pl_module.state_dict().items()}

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the best weights back."""
        if self._weights is not None:
            pl_module.load_state_dict(self._weights)


class EpochBar(lightning.Callback):
    """One line on stderr: batches done over all epochs, and the last losses. (Lightning's own bars write to stdout.)"""

    def __init__(self, epochs: int) -> None:
        self._epochs = epochs
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Draw the line."""
        if trainer.is_global_zero:
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("training", total=self._epochs * trainer.num_training_batches)
            self._bar.start()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advance by a batch."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Show the epoch's losses."""
        if self._bar is not None:
            losses = trainer.callback_metrics
            text = f"epoch {trainer.current_epoch + 1}/{self._epochs}"
            text += f"  train {losses['train_loss']:.4f}  validation {losses['validation_loss']:.4f}"
            self._bar.update(self._task, description=text)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take the line away."""
        self._stop()

    def on_exception(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, exception: BaseException
    ) -> None:
        """Take the line away, so that the error stands alone."""
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _trainer(config: TrainingConfig, folder: Path, *, progress: bool) -> lightning.Trainer:
    callbacks: list[lightning.Callback] = [
        BestWeights(),
        EarlyStopping("validation_loss", patience=config.patience, mode="min"),
    ]
    try:
        return lightning.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            strategy="ddp_spawn" if _several_devices(config) else "auto",
            max_epochs=config.epochs,
            callbacks=[*callbacks, EpochBar(config.epochs)] if progress else callbacks,
            logger=CSVLogger(folder, name="", version=""),
            gradient_clip_val=GRADIENT_CLIP,
            deterministic=True,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
    except (MisconfigurationException, ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        raise ConfigError(
            f"training.accelerator, training.devices: Lightning cannot use {config.accelerator!r} with "
            f"{config.devices!r} devices ({said}); remove both lines to use what the machine has"
        ) from error


def _several_devices(config: TrainingConfig) -> bool:
    """Whether training spreads over processes; spawned ones return here, so only this one writes the bundle."""
    if config.devices != "auto":
        return config.devices > 1 or (config.devices == -1 and torch.cuda.device_count() > 1)
    return config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.device_count() > 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's remarks on stderr and the warnings that do not concern windows in memory."""
    names = ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # Loader workers would copy what is already in memory; a GPU left unused was the run file's choice.
            warnings.simplefilter("ignore", PossibleUserWarning)
            # Lightning's own use of a name that torch is about to remove.
            warnings.filterwarnings("ignore", message=r".*LeafSpec", category=FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _global_settings_restored() -> Iterator[None]:
    """Undo what Lightning's ``deterministic`` sets for the whole process and leaves behind."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    # Deterministic mode also overwrites all fresh memory, a debugging aid that costs a fifth of the training time.
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        memory.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


@contextmanager
def _interrupt_passed_on() -> Iterator[None]:
    """Turn Lightning's answer to Ctrl-C back into a KeyboardInterrupt.

    Its trainer catches the interrupt, sets SIGINT to be ignored from then on, and exits with status 1.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as exit_:
        if isinstance(exit_.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, handler)
            raise KeyboardInterrupt from None
        raise


def _read_curve(path: Path) -> tuple[EpochLosses, ...]:
    """The training curve from Lightning's CSV log, which has a row a logged moment and counts epochs from 0."""
    losses: dict[int, dict[str, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            at_epoch = losses.setdefault(int(row["epoch"]) + 1, {})
            at_epoch.update({name: float(row[name]) for name in ("train_loss", "validation_loss") if row.get(name)})
    return tuple(EpochLosses(epoch, **values) for epoch, values in sorted(losses.items()))

"""Training: Lightning's fit against a bare torch loop over the same batches, to the same weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from benchmarks.forecasting import QUICKSTART
from benchmarks.harness import Comparison, Disagreement, Measured, rounds, seconds_of, timed
from benchmarks.market import daily_bars
from engine.config import TrainingConfig
from engine.model_sections import ModelSection
from engine.run_file import load_config
from models.bundle import own_model
from models.features import parse_features
from models.fitting.gradient import GRADIENT_CLIP, build_optimizer, fit, prepared_network, training_batches
from models.fitting.task import Task
from models.networks import Network, build_network
from models.windows import Rows, Windows, batches_of

NAME = "training"
_VALIDATION_BATCH = 1024  # as in models.training


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much to measure; windows are the training span's, a fifth as many are validated on."""

    windows: int = 2_500
    epochs: int = 3
    rounds: int = 5


@dataclass(frozen=True, kw_only=True)
class _Work:
    model: ModelSection
    config: TrainingConfig
    windows: Windows
    train_rows: Rows
    validation_rows: Rows


def measure(size: Size) -> Iterator[Measured]:
    """The comparison of training."""
    work = _prepare(size)
    ours = timed("nextbar", lambda: _lightning(work))
    bare = timed("torch", lambda: _bare_loop(work))
    our_turns, peer_turns = rounds(ours, bare, count=size.rounds)
    difference = _largest_difference(our_turns[-1].result, peer_turns[-1].result)
    if not difference < 1e-3:
        raise Disagreement(f"{NAME}: the weights of both loops differ by up to {difference}")
    yield Comparison(
        benchmark=NAME,
        case=f"fit, {size.epochs} epochs",
        peer=f"torch {torch.__version__}, bare loop",
        unit="windows",
        amount=size.windows * size.epochs,
        ours_seconds=seconds_of(our_turns),
        peer_seconds=seconds_of(peer_turns),
        goal=0.95,
        facts={"largest_weight_difference": difference},
    )


def _prepare(size: Size) -> _Work:
    config = load_config(QUICKSTART)
    model = own_model(config)
    features = parse_features(model.features, close_only=False)
    validated = max(1, size.windows // 5)
    # The features' memory comes on top of the windows' own lookback.
    bars = daily_bars(size.windows + validated + model.lookback + 200)
    windows = Windows.build(bars, features, lookback=model.lookback, horizons=model.horizons)
    rows = np.arange(windows.memory - 1, len(windows.features) - model.horizon)
    # On the CPU, as the bare loop; as many epochs for both.
    training = config.training.model_copy(
        update={"epochs": size.epochs, "patience": size.epochs, "accelerator": "cpu", "devices": 1}
    )
    return _Work(
        model=model,
        config=training,
        windows=windows,
        train_rows=rows[: size.windows],
        validation_rows=rows[size.windows : size.windows + validated],
    )


def _lightning(work: _Work) -> Network:
    task = Task(
        model=work.model,
        windows=work.windows,
        train_rows=work.train_rows,
        validation_rows=work.validation_rows,
        training=work.config,
    )
    return fit(task).network


def _bare_loop(work: _Work) -> Network:
    """What one would write without Lightning: no log, no callbacks; the best weights are kept here, too."""
    with isolate_rng():
        network = prepared_network(
            lambda: build_network(work.model), work.windows, work.train_rows, seed=work.config.seed
        )
        optimizer = build_optimizer(network, learning_rate=work.config.learning_rate)
        train = training_batches(work.windows, work.train_rows, work.config)
        validation = batches_of(work.windows, work.validation_rows, batch=_VALIDATION_BATCH)
        lowest, best = float("inf"), network.state_dict()
        for _ in range(work.config.epochs):
            network.train()
            for windows, labels in train:
                optimizer.zero_grad()
                network.loss(windows, labels).backward()
                nn.utils.clip_grad_norm_(network.parameters(), GRADIENT_CLIP)
                optimizer.step()
            network.eval()
            with torch.inference_mode():
                losses = [network.loss(windows, labels) * len(labels) for windows, labels in validation]
            loss = float(torch.stack(losses).sum()) / len(work.validation_rows)
            if loss < lowest:
                lowest = loss
                best = {name: value.detach().clone() for name, value in network.state_dict().items()}
        network.load_state_dict(best)
        return network.eval()


def _largest_difference(ours: Network, theirs: Network) -> float:
    others = theirs.state_dict()
    return max(float((value - others[name]).abs().max()) for name, value in ours.state_dict().items())

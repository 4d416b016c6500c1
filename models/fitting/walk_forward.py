"""Walk-forward: a model for each of the run file's folds, each kept as soon as it is fitted."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from engine.config import FoldsConfig, RunConfig, Spans
from engine.data.bars import Bars
from engine.data.folds import Fold, folds_of, sessions_between, training_of_fold
from engine.errors import BundleError, ConfigError, StorageError
from engine.model_sections import EnsembleConfig, ModelSection
from models.bundle import HASH_LENGTH, Bundle, as_fitted_now, bundle_hash, own_model
from models.bundle_files import load_bundle, write_bundle
from models.fitting import by_gradients
from models.fitting.bundles import fit_bundle
from models.training_bars import seen_bars

LOCK = "lock"


@dataclass(frozen=True, kw_only=True)
class FittedFold:
    """A fold whose model is there.

    Attributes:
        number: from 1 on. count: of how many.
        config: the run file of the fold alone: its spans, and what is left out at their ends as ``training.embargo``.
        bundle: not scored yet.
        reused: it was there already, from a training that was cut off.
    """

    number: int
    count: int
    config: RunConfig
    bundle: Bundle
    reused: bool


def fold_configs(config: RunConfig, bars: Bars) -> tuple[RunConfig, ...]:
    """The run file of each fold, in the order of time; none of them asks for a walk-forward itself.

    Raises:
        ConfigError: no folds, or such as no model can be fitted for; names the YAML path.
    """
    model, section = own_model(config), config.folds
    if section is None:
        raise ConfigError(
            "folds: training.walk_forward trains a model a fold, and the run file has no folds; add the section, as in "
            "folds: {train: 500, validate: 120, test: 60}"
        )
    if section.kind == "combinatorial":
        raise ConfigError(
            "folds.kind: a walk-forward goes from one fold to the next in time, expected sliding or expanding, found "
            "combinatorial; change the kind, or remove training.walk_forward"
        )
    if not section.validate_:
        raise ConfigError(
            "folds.validate: each model of a walk-forward is chosen on its validation sessions, expected at least 1, "
            f"found {section.validate_ or 'none'}; give a number of sessions"
        )
    if config.training.warm_start and not _learns_by_gradients(model):
        raise ConfigError(
            f"training.warm_start: {model.kind} is fitted anew each time, and has nothing to go on from; remove "
            "warm_start, or take a network"
        )
    times = {symbol: pd.DatetimeIndex(frame.index) for symbol, frame in bars.frames.items()}
    found = folds_of(section, sessions_between(times, config.spans.extent))
    return tuple(_of_fold(config, section, fold, longest=max(model.horizons)) for fold in found)


def _learns_by_gradients(model: ModelSection) -> bool:
    if isinstance(model, EnsembleConfig):
        return any(by_gradients(member) for member in model.members)
    return by_gradients(model)


def _of_fold(config: RunConfig, section: FoldsConfig, fold: Fold, *, longest: int) -> RunConfig:
    training = training_of_fold(config.training, section, longest=longest)
    (train,), (validate,), (test,) = fold.train, fold.validate, fold.test
    spans = Spans.model_validate({"train": train, "validate": validate, "test": test})
    return config.model_copy(update={"spans": spans, "training": training, "folds": None})


class FoldStore:
    """Where the folds of one walk-forward lie until all of them are there: ``bundles/.<name>-<hash12>.folds``.

    Attributes:
        path: the folder of the bundle that the folds are for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = _folder_of(path)

    def find(self, config: RunConfig, bars: Bars) -> Bundle | None:
        """The fold's bundle, if it is whole, of the same request, bars and versions."""
        try:
            bundle = load_bundle(self._of(config))
        except BundleError:
            return None
        return bundle if as_fitted_now(bundle, config, bars) else None

    def put(self, config: RunConfig, bundle: Bundle) -> Bundle:
        """Keep a fold's bundle, durably; a StorageError where it cannot be written."""
        return write_bundle(replace(bundle, path=self._of(config)))

    def drop(self, configs: Sequence[RunConfig]) -> None:
        """Remove the bundles of these folds, the last one first."""
        for config in reversed(configs):
            shutil.rmtree(self._of(config), ignore_errors=True)

    def clear(self) -> None:
        """Remove everything, and what a killed process left of the bundle itself."""
        for left in self.path.parent.glob(f".{self.path.name}.*"):
            if left.suffix in (".new", ".old") or left == self.folder:
                shutil.rmtree(left, ignore_errors=True)

    def _of(self, config: RunConfig) -> Path:
        train, test = config.spans.get("train"), config.spans.test
        return self.folder / f"{train[0]}-{test[0]}-{bundle_hash(config)[:HASH_LENGTH]}"


def _folder_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.folds")


@contextmanager
def fold_store(path: Path) -> Iterator[FoldStore]:
    """The store of the walk-forward bundle that will lie at ``path``, for one process at a time.

    Raises:
        StorageError: another process trains the same, or the folder cannot be written.
    """
    store = FoldStore(path)
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(store.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise StorageError(
            f"{store.folder}: the folds could not be kept ({error.strerror or error}); free some space, or make the "
            "folder writable"
        ) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"{store.folder}: another process trains this walk-forward; wait until it has ended"
            ) from None
        yield store
    finally:
        os.close(lock)


def fit_walk_forward(
    config: RunConfig,
    bars: Bars,
    *,
    store: FoldStore,
    progress: bool = False,
    on_fold: Callable[[FittedFold], None] = lambda fold: None,
) -> tuple[Bundle, tuple[FittedFold, ...]]:
    """Fit the run file's model on each of its folds; the bundle that holds them is neither scored nor written yet.

    Folds that the store has are taken from it, so that a training that was cut off goes on; with ``warm_start`` only
    those before the first one that it lacks.

    Args:
        config: the run file, with folds.
        bars: all of its bars.
        store: where each fold is kept as soon as it is fitted.
        progress: show a progress bar on stderr, if that is a terminal.
        on_fold: is told of each fold that is there.

    Raises:
        ConfigError: see ``fold_configs`` and ``fit_bundle``.
        StorageError: a fold cannot be kept.
        KeyboardInterrupt: on Ctrl-C; says how many folds are kept.
    """
    configs = fold_configs(config, bars)
    done: list[FittedFold] = []
    try:
        for fold in _fitted(configs, bars, store, warm=config.training.warm_start, progress=progress):
            done.append(fold)
            on_fold(fold)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_interrupted(len(done), len(configs))) from None
    return _together(config, bars, store.path, [fold.bundle for fold in done]), tuple(done)


def _fitted(
    configs: Sequence[RunConfig], bars: Bars, store: FoldStore, *, warm: bool, progress: bool
) -> Iterator[FittedFold]:
    whole, before = True, None
    for number, config in enumerate(configs, start=1):
        bundle = store.find(config, bars) if whole or not warm else None
        reused = bundle is not None
        if bundle is None:
            if warm and whole:
                store.drop(configs[number - 1 :])  # they went on from what this one was
            whole = False
            try:
                fitted = fit_bundle(config, bars, root=store.folder, progress=progress, start=before if warm else None)
            except ConfigError as error:
                where = f"folds: of fold {number} of {len(configs)}, " if str(error).startswith("spans.") else ""
                raise ConfigError(f"{where}{error}") from None
            bundle = store.put(config, fitted)
        before = bundle
        yield FittedFold(number=number, count=len(configs), config=config, bundle=bundle, reused=reused)


def _interrupted(done: int, count: int) -> str:
    kept = "no fold was" if not done else f"{done} of {count} folds are"
    return f"interrupted; {kept} kept, and the same command goes on from there"


def _together(config: RunConfig, bars: Bars, path: Path, members: Sequence[Bundle]) -> Bundle:
    """One bundle of all members. What a forecast is measured by is of the first one: it was known before any test."""
    first = members[0].record
    bundle = Bundle(path, first, (), None, members=tuple(members))
    takes_over = tuple(member.record.spans.test[0] for member in members)
    span = members[0].seen[0], members[-1].seen[1]
    record = first.model_copy(
        update={
            "hash": bundle_hash(config),
            "spans": config.spans,
            "takes_over": takes_over,
            "combination": None,
            "calibration": None,
            "training_bars": seen_bars(bars, span, memory=first.memory),
            "evaluation": {},
            "files": {},
        }
    )
    return replace(bundle, record=record)

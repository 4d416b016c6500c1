"""Bundles: a trained model, what is recorded of it, and how the one that a run file asks for is found.

The hash is of what the run file asks for, so the same request finds the same bundle. ``models.bundle_files`` writes and
reads them.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from pydantic import Field

from engine.config import RunConfig, Spans
from engine.data.bars import Bars
from engine.data.universe import read_universe
from engine.errors import BundleError, ConfigError
from engine.model_sections import BundleReference, DescribedModel, ModelSection
from engine.sections import Section, digest, dump
from models.curve import EpochLosses
from models.features import Feature, parse_features
from models.memory import memory_of
from models.networks import Network
from models.training_bars import TrainingBars, changes, seen_bars, training_bars
from models.windows import Singles

WEIGHTS, RECORD, CURVE = "weights.safetensors", "bundle.json", "training.csv"
HASH_LENGTH = 12
_ASKED_DATA = {
    "source", "symbols", "timeframe", "base", "path", "columns", "timezone", "stamp", "date_format", "feed",
    "adjustment", "cleaning",
}  # fmt: skip


class BundleRecord(Section):
    """What bundle.json says.

    Attributes:
        hash: of the request, see ``bundle_hash``.
        model, spans, seed, timeframe, symbols, close_only, adjustment: what was trained, and on what.
        memory: bars that a forecast depends on.
        takes_over: of a walk-forward bundle, the session of the first decision bar of each member.
        combination: of an ensemble that learned how to weigh its members, horizon -> numbers; see ``models.ensemble``.
        calibration: horizon -> numbers that its intervals are set by, see ``models.calibration``; None without.
        training_bars: symbol -> the bars that the fit could see.
        train_mean: mean label of the training span. train_naive_mae: its mean absolute label.
        evaluation: figures on the test span, see ``models.evaluation.score``.
        more_evaluations: the same of each horizon that is not traded, horizon -> figures.
        versions: of python, torch, numpy and nextbar.
        files: file name -> SHA-256.
    """

    hash: str
    model: DescribedModel
    spans: Spans
    seed: int
    timeframe: str
    symbols: tuple[str, ...]
    close_only: bool
    adjustment: str
    memory: int
    takes_over: tuple[date, ...] | None = None
    combination: Mapping[str, tuple[float, ...]] | None = None
    calibration: Mapping[str, tuple[float, ...]] | None = None
    training_bars: Mapping[str, TrainingBars]
    train_mean: float
    train_naive_mae: float
    evaluation: Mapping[str, float | None]
    more_evaluations: Mapping[str, Mapping[str, float | None]] = Field(default_factory=dict)
    versions: Mapping[str, str]
    files: Mapping[str, str]

    @property
    def weights_hash(self) -> str:
        """SHA-256 of what was learned: the tensors; where there is more, as trees or members, all of it."""
        if WEIGHTS in self.files and self.files.keys() <= {WEIGHTS, CURVE} and self.calibration is None:
            return self.files[WEIGHTS]
        return digest(self.combination, self.calibration, dict(self.files))

    @property
    def last_seen(self) -> date:
        """The last session that the model was trained or chosen on: it knows nothing after it, and all before it.

        A walk-forward bundle decides on a bar with the member that was trained before it.
        """
        if self.takes_over:
            return self.takes_over[0] - timedelta(days=1)
        return max(span[1] for span in (self.spans.get("train"), self.spans.get("validate")))


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model.

    Attributes:
        path: the folder where it lies, or will.
        record: what bundle.json says.
        features: the record's features, parsed; none of a bundle of bundles.
        network: on the CPU, in evaluation mode; None of a bundle of bundles.
        curve: losses of each epoch, from epoch 1 on.
        members: of an ensemble its members, of a walk-forward bundle those that take over from one another.
    """

    path: Path
    record: BundleRecord
    features: tuple[Feature, ...]
    network: Network | None
    curve: tuple[EpochLosses, ...] = ()
    members: tuple[Bundle, ...] = ()

    @property
    def seen(self) -> tuple[date, date]:
        """First and last session of what it was trained and chosen on; of a walk-forward bundle, of all its members."""
        if self.record.takes_over:
            return self.members[0].seen[0], self.members[-1].seen[1]
        return self.record.spans.get("train")[0], self.record.spans.get("validate")[1]

    @property
    def parameters(self) -> int:
        """Numbers that were learned, in all members together."""
        own = 0 if self.network is None else self.network.learned
        return own + sum(member.parameters for member in self.members)


def bundle_hash(config: RunConfig) -> str:
    """SHA-256 of what training depends on: model, training, spans, and the data asked for (symbols in any order).

    The benchmark, warm-up, strategy, broker and risk do not enter.

    Raises:
        ConfigError: the run file has no model of its own.
    """
    data = {name: value for name, value in dump(config.data).items() if name in _ASKED_DATA}
    data["symbols"] = sorted(config.data.symbols)
    if config.data.path is not None:
        # By its name: a run's own copy of the run file has the whole path, and asks for the same bundle.
        data["path"] = config.resolve(config.data.path).resolve().name
    if config.data.universe is not None:
        # Who was a member when, whatever the file is called.
        data["universe"] = read_universe(config.resolve(config.data.universe)).digest
    asked = [dump(own_model(config)), dump(config.training), dump(config.spans), data]
    if config.training.walk_forward and config.folds is not None:
        asked.append(dump(config.folds))
    return digest(*asked)


def own_model(config: RunConfig) -> ModelSection:
    """The model section, where it describes a model; a ConfigError where it is absent or names a bundle."""
    if config.model is None:
        raise ConfigError("model: this command needs a model, and the run file has none; add a model section")
    if isinstance(config.model, BundleReference):
        raise ConfigError(
            f"model.bundle: the run file names a trained bundle ({config.model.bundle}), which cannot be trained; "
            "describe the model instead"
        )
    return config.model


def find_bundle(config: RunConfig, root: Path = Path("bundles")) -> Path:
    """The folder of the bundle that the run file asks for: by its path where it names one, else by hash.

    A bundle trained under another run's name is found too, since the hash says that it is the same model.

    Raises:
        ConfigError: the run file has no model.
        BundleError: there is no such bundle; names the command that makes it.
    """
    if isinstance(config.model, BundleReference):
        named = config.model.bundle
        # Relative to the run file, or, as it is typed behind --set, to the folder in which the command runs.
        found = [path for path in (config.resolve(named), root.parent / named) if path.is_dir()]
        if not found:
            raise BundleError(
                f"model.bundle: {config.resolve(named)}: no such bundle folder, nor is {root.parent / named} one; "
                "train one, or correct the path"
            )
        return found[0]
    short = bundle_hash(config)[:HASH_LENGTH]
    own = root / f"{config.name}-{short}"
    if own.is_dir():
        return own
    others = sorted(path for path in root.glob(f"[!.]*-{short}") if path.is_dir())
    if not others:
        raise BundleError(f"{own}: no bundle of this model, data and spans yet; run `nextbar train CONFIG` first")
    return others[0]


def new_bundle(
    config: RunConfig,
    network: Network | None,
    *,
    bars: Bars,
    train_labels: Singles,
    root: Path,
    curve: Sequence[EpochLosses] = (),
    members: Sequence[Bundle] = (),
    combination: Mapping[str, tuple[float, ...]] | None = None,
) -> Bundle:
    """A bundle in memory, not evaluated and not written yet.

    Args:
        config: the run file, whose model section describes the network.
        network: fitted, on the CPU; None of a bundle of bundles.
        curve: losses of each epoch.
        bars: all bars that were loaded for training.
        train_labels: the labels of the training span at the traded horizon, log returns.
        root: the folder that will hold the bundle's folder.
        members, combination: see ``Bundle`` and ``BundleRecord``.
    """
    model = own_model(config)
    memory = memory_of(model, close_only=bars.close_only)
    labels = np.asarray(train_labels, dtype=np.float64)
    record = BundleRecord(
        hash=bundle_hash(config),
        model=model,
        spans=config.spans,
        seed=config.training.seed,
        timeframe=bars.timeframe,
        symbols=bars.symbols,
        close_only=bars.close_only,
        adjustment=bars.adjustment,
        memory=memory,
        combination=combination,
        training_bars=training_bars(bars, config.spans, memory=memory),
        train_mean=float(labels.mean()),
        train_naive_mae=float(np.abs(labels).mean()),
        evaluation={},
        versions=versions(),
        files={},
    )
    path = new_path(config, root)
    features = () if network is None else parse_features(model.features, close_only=bars.close_only)
    return Bundle(path, record, features, None if network is None else network.eval(), tuple(curve), tuple(members))


def new_path(config: RunConfig, root: Path) -> Path:
    """The folder that a bundle of this run file is written to."""
    return root / f"{config.name}-{bundle_hash(config)[:HASH_LENGTH]}"


def versions() -> dict[str, str]:
    """Of what a fit depends on besides the request and the bars."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "nextbar": version("nextbar"),
    }


def as_fitted_now(bundle: Bundle, config: RunConfig, bars: Bars) -> bool:
    """Whether a fit would give this bundle again: of the same request, training bars and versions."""
    record = bundle.record
    return (
        record.hash == bundle_hash(config)
        and record.training_bars == training_bars(bars, config.spans, memory=record.memory)
        and record.versions == versions()
    )


def evaluated(
    bundle: Bundle,
    evaluation: Mapping[str, float | None],
    *,
    more: Mapping[str, Mapping[str, float | None]] | None = None,
) -> Bundle:
    """The bundle with its figures on the test span, and with ``more`` of its other horizons."""
    figures = {
        "evaluation": dict(evaluation),
        "more_evaluations": {name: dict(own) for name, own in (more or {}).items()},
    }
    return replace(bundle, record=bundle.record.model_copy(update=figures))


def check_fit(bundle: Bundle, config: RunConfig, bars: Bars) -> tuple[str, ...]:
    """Check that a bundle can be used on these bars.

    Symbols that it never saw are allowed, since it is pooled over symbols and its features are scale-free.

    Returns:
        Remarks for the user, one sentence each: training bars that have changed, symbols not trained on, prices
        adjusted in another way.

    Raises:
        BundleError: another timeframe, features that close-only bars do not have, or not the run file's model.
    """
    record = bundle.record
    if config.model is not None and not isinstance(config.model, BundleReference):
        asked = bundle_hash(config)
        if record.hash != asked:
            raise BundleError(
                f"{bundle.path}: the bundle of another model, data or spans: expected hash {asked[:HASH_LENGTH]}, "
                f"found {record.hash[:HASH_LENGTH]}; run `nextbar train CONFIG`"
            )
    if isinstance(config.model, ModelSection) and (record.model, record.spans) != (config.model, config.spans):
        raise BundleError(f"{bundle.path}: its record names another model or other spans than its hash; train again")
    if bars.timeframe != record.timeframe:
        raise BundleError(
            f"{bundle.path}: trained on {record.timeframe} bars, and data.timeframe is {bars.timeframe}; "
            "use bars of the same timeframe, or train again"
        )
    try:
        memory_of(record.model, close_only=bars.close_only)
    except ConfigError as error:
        raise BundleError(f"{bundle.path}: its features do not fit these bars ({error})") from None
    remarks = changes(record.training_bars, seen_bars(bars, bundle.seen, memory=record.memory))
    strangers = [symbol for symbol in bars.symbols if symbol not in record.symbols]
    if strangers:
        remarks.append(
            f"the bundle was not trained on {', '.join(strangers)}; it forecasts them as one more of its kind"
        )
    if bars.adjustment != record.adjustment:
        remarks.append(f"the bundle was trained on prices adjusted: {record.adjustment}, these are: {bars.adjustment}")
    return tuple(remarks)

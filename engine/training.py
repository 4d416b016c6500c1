"""The use case behind ``nextbar train``: bars in, a bundle out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import RunConfig, SpanName
from engine.data.bars import Bars
from engine.data.cleaning.findings import within
from engine.data.sources import load_bars
from engine.errors import BundleError, ConfigError
from engine.remarks import cleaning
from engine.report.trials import append_trial
from engine.sections import digest, dump
from engine.walk_forward import FoldReport, train_walk_forward, trained_before
from models.bundle import Bundle, bundle_hash, evaluated, find_bundle, new_path, own_model
from models.bundle_files import load_bundle, write_bundle
from models.curve import best_epoch
from models.evaluation import forecast_frame, score_frame
from models.fitting.bundles import SPANS, decisions_of, fit_bundle, window_counts
from models.forecaster import Forecaster
from models.memory import forecast_memory
from models.training_bars import seen_bars


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What training did.

    Attributes:
        path: the bundle's folder.
        hash: of the request, see ``models.bundle.bundle_hash``.
        evaluation: figures on the test span as the bars are now, beside the naive forecasts'; see
            ``models.evaluation.score``.
        more_evaluations: the same of each horizon that is not traded; none of a walk-forward.
        epochs: epochs run. best_epoch: the one whose weights were kept.
        reused: a bundle of the same request and bars was there already, and nothing was trained.
        parameters: of the network.
        memory: bars that a forecast depends on.
        windows: windows in each span: train, validate, test.
        training_bars: symbol -> bars that the fit could see.
        data_hash: content hash of all bars that were loaded.
        remarks: what cleaning found and changed in the bars that the fit could see.
        folds: of a walk-forward, each fold; its windows are those of all folds together, and it has no epochs itself.
        members: of an ensemble, the kinds of its members. weights: horizon -> what each of them got, if that is fixed.
    """

    path: Path
    hash: str
    evaluation: Mapping[str, float | None]
    more_evaluations: Mapping[str, Mapping[str, float | None]]
    epochs: int
    best_epoch: int
    reused: bool
    parameters: int
    memory: int
    windows: Mapping[str, int]
    training_bars: Mapping[str, int]
    data_hash: str
    remarks: tuple[str, ...]
    folds: tuple[FoldReport, ...] = ()
    members: tuple[str, ...] = ()
    weights: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def train(
    config: RunConfig,
    *,
    root: Path = Path(),
    now: datetime,
    progress: bool = False,
    force: bool = False,
    on_note: Callable[[str], None] = lambda sentence: None,
) -> TrainingReport:
    """Train the run file's model, score it on the test span beside naive forecasts, and write its bundle.

    The score is a look at the test span, and is counted as a trial.

    Args:
        config: the run file.
        root: the folder that holds ``bundles/`` and ``runs/``.
        now: the moment that is written into the ledger of trials.
        progress: show a progress bar on stderr, if that is a terminal.
        force: train even if a valid bundle of the same request and the same bars is there.
        on_note: is told of each fold of a walk-forward, in a sentence.

    Raises:
        ConfigError: no model to train, a span missing, or too few bars for a window; names the YAML path.
        DataError: the bars are missing or malformed.
        StorageError: the bundle could not be written.
        KeyboardInterrupt: on Ctrl-C; nothing half-written is left.
    """
    model = own_model(config)
    bars = load_bars(config.data, config.folder, root=root, within=config.spans.extent)
    found = None if force else _find_trained(config, bars, root=root)
    more: dict[str, Mapping[str, float | None]] = {}
    if config.training.walk_forward:
        path = new_path(config, root / "bundles")
        walked = (
            train_walk_forward(config, bars, path=path, progress=progress, force=force, on_note=on_note)
            if found is None
            else trained_before(config, found, bars)
        )
        bundle, evaluation, folds = walked
        windows = {name: sum(fold.windows[name] for fold in folds) for name in SPANS}
    else:
        if config.training.warm_start:
            raise ConfigError(
                "training.warm_start: each model of a walk-forward goes on from the one before it, and the run file "
                "asks for a single model; set training.walk_forward, or remove warm_start"
            )
        decisions, folds = decisions_of(config, model, bars), ()
        bundle = found or fit_bundle(config, bars, root=root / "bundles", progress=progress)
        evaluation = _evaluate(bundle, bars, config)
        more = {str(horizon): _evaluate_other(bundle, bars, config, horizon) for horizon in model.horizons[1:]}
        if found is None:
            bundle = write_bundle(evaluated(bundle, evaluation, more=more))
        windows = window_counts(decisions, bars, memory=forecast_memory(model, close_only=bars.close_only))
    append_trial(root / "runs", _trial(config, bundle, evaluation, bars, now))
    return _report(bundle, evaluation, more, reused=found is not None, windows=windows, bars=bars, folds=folds)


def _find_trained(config: RunConfig, bars: Bars, *, root: Path) -> Bundle | None:
    """The valid bundle of the same request and the same training bars, if there is one; a damaged one is replaced."""
    try:
        bundle = load_bundle(find_bundle(config, root / "bundles"))
    except BundleError:
        return None
    record = bundle.record
    same_bars = record.training_bars == seen_bars(bars, bundle.seen, memory=record.memory)
    return bundle if same_bars and record.hash == bundle_hash(config) else None


def _evaluate(bundle: Bundle, bars: Bars, config: RunConfig) -> Mapping[str, float | None]:
    frame = forecast_frame(bars, Forecaster(bundle), config.spans.test)
    return score_frame(frame, train_mean=bundle.record.train_mean, train_naive_mae=bundle.record.train_naive_mae)


def _evaluate_other(bundle: Bundle, bars: Bars, config: RunConfig, horizon: int) -> Mapping[str, float | None]:
    """The figures of a horizon that is not traded, beside naive forecasts of that horizon."""
    forecaster = Forecaster(bundle, horizon=horizon)
    # What came in the training span is asked for, and no forecast of it.
    unasked = {symbol: np.zeros((len(frame), 3)) for symbol, frame in bars.frames.items()}
    labels = forecast_frame(bars, forecaster, config.spans.get("train"), known=unasked)["realised"].dropna()
    frame = forecast_frame(bars, forecaster, config.spans.test)
    return score_frame(frame, train_mean=float(labels.mean()), train_naive_mae=float(labels.abs().mean()))


def _trial(
    config: RunConfig, bundle: Bundle, evaluation: Mapping[str, float | None], bars: Bars, now: datetime
) -> Mapping[str, Any]:
    start, end = config.spans.get("test")
    return {
        "time": now.isoformat(),
        "kind": "train",
        "name": config.name,
        "hashes": {
            "config": digest(dump(config)),
            "data": bars.content_hash,
            "model": bundle.record.weights_hash,
            "strategy": None,
        },
        "span": {"name": "test", "start": str(start), "end": str(end)},
        "sharpe_ratio": None,
        "r2_out_of_sample": evaluation.get("r2_out_of_sample"),
    }


def _report(
    bundle: Bundle,
    evaluation: Mapping[str, float | None],
    more: Mapping[str, Mapping[str, float | None]],
    *,
    reused: bool,
    windows: Mapping[SpanName, int],
    bars: Bars,
    folds: tuple[FoldReport, ...],
) -> TrainingReport:
    seen = bundle.record.training_bars
    fitted = {symbol: bars.frames[symbol].loc[own.first : own.last] for symbol, own in seen.items() if own.bars}
    return TrainingReport(
        path=bundle.path,
        hash=bundle.record.hash,
        evaluation=evaluation,
        more_evaluations=more,
        epochs=len(bundle.curve),
        best_epoch=best_epoch(bundle.curve),
        reused=reused,
        parameters=bundle.parameters,
        memory=bundle.record.memory,
        windows={str(name): count for name, count in windows.items()},
        training_bars={symbol: own.bars for symbol, own in seen.items()},
        data_hash=bars.content_hash,
        remarks=tuple(cleaning(within(bars.quality, fitted))),
        folds=folds,
        members=() if folds else tuple(member.record.model.kind for member in bundle.members),
        weights=bundle.record.combination or {},
    )

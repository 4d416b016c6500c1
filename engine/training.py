"""The use case behind ``nextbar train``: bars in, a bundle out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from engine.config import LstmConfig, RunConfig, SpanName, digest, dump
from engine.data.bars import Bars
from engine.data.cleaning.findings import within
from engine.data.cuts import check_cuts, labelled_slice
from engine.data.sources import load_bars
from engine.errors import BundleError, ConfigError
from engine.remarks import cleaning
from engine.report.trials import append_trial
from models.bundle import (
    Bundle,
    bundle_hash,
    evaluated,
    find_bundle,
    load_bundle,
    new_bundle,
    own_model,
    write_bundle,
)
from models.evaluation import forecast_frame, score_frame
from models.features import parse_features
from models.forecaster import Forecaster
from models.networks import build_network
from models.training_bars import training_bars
from models.windows import Rows, Windows

_SPANS: tuple[SpanName, ...] = ("train", "validate", "test")


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What training did.

    Attributes:
        path: the bundle's folder.
        hash: of the request, see ``models.bundle.bundle_hash``.
        evaluation: figures on the test span as the bars are now, beside the naive forecasts'; see
            ``models.evaluation.score``.
        epochs: epochs run. best_epoch: the one whose weights were kept.
        reused: a bundle of the same request and bars was there already, and nothing was trained.
        parameters: of the network.
        memory: bars that a forecast depends on.
        windows: windows in each span: train, validate, test.
        training_bars: symbol -> bars that the fit could see.
        data_hash: content hash of all bars that were loaded.
        remarks: what cleaning found and changed in the bars that the fit could see.
    """

    path: Path
    hash: str
    evaluation: Mapping[str, float | None]
    epochs: int
    best_epoch: int
    reused: bool
    parameters: int
    memory: int
    windows: Mapping[str, int]
    training_bars: Mapping[str, int]
    data_hash: str
    remarks: tuple[str, ...]


def train(
    config: RunConfig, *, root: Path = Path(), now: datetime, progress: bool = False, force: bool = False
) -> TrainingReport:
    """Train the run file's model, score it on the test span beside naive forecasts, and write its bundle.

    The score is a look at the test span, and is counted as a trial.

    Args:
        config: the run file.
        root: the folder that holds ``bundles/`` and ``runs/``.
        now: the moment that is written into the ledger of trials.
        progress: show a progress bar on stderr, if that is a terminal.
        force: train even if a valid bundle of the same request and the same bars is there.

    Raises:
        ConfigError: no model to train, a span missing, or too few bars for a window; names the YAML path.
        DataError: the bars are missing or malformed.
        StorageError: the bundle could not be written.
        KeyboardInterrupt: on Ctrl-C; nothing half-written is left.
    """
    model = own_model(config)
    bars = load_bars(config.data, config.folder, root=root, within=config.spans.extent)
    windows = _build_windows(model, bars)
    rows = _cut(config, model, bars, windows)
    bundle = None if force else _find_trained(config, bars, root=root)
    reused = bundle is not None
    if bundle is None:
        bundle = _fit_bundle(config, model, bars, windows, rows, root=root, progress=progress)
    evaluation = _evaluate(bundle, bars, config)
    if not reused:
        bundle = write_bundle(evaluated(bundle, evaluation))
    append_trial(root / "runs", _trial(config, bundle, evaluation, bars, now))
    return _report(bundle, evaluation, reused=reused, rows=rows, bars=bars)


def _build_windows(model: LstmConfig, bars: Bars) -> Windows:
    features = parse_features(model.features, close_only=bars.close_only)
    windows = Windows.build(bars, features, lookback=model.lookback, horizon=model.horizon)
    symbol, longest = max(((symbol, len(frame)) for symbol, frame in bars.frames.items()), key=lambda item: item[1])
    needed = windows.memory + model.horizon
    if longest < needed:
        raise ConfigError(
            f"model.lookback: one window and its label need {needed} bars (lookback {model.lookback}, features "
            f"{windows.memory - model.lookback} more, horizon {model.horizon}), and the longest series, {symbol}, has "
            f"{longest}; shorten the lookback, or use more bars"
        )
    return windows


def _cut(config: RunConfig, model: LstmConfig, bars: Bars, windows: Windows) -> dict[SpanName, Rows]:
    """The rows of each span whose window is complete and whose label stays inside the span; none of them empty.

    Of a universe, those at which the symbol was a member: who will join later is chosen in hindsight.
    """
    times = {symbol: pd.DatetimeIndex(frame.index) for symbol, frame in bars.frames.items()}
    decisions = {
        name: {
            symbol: labelled_slice(index, config.spans.get(name), horizon=model.horizon, embargo=_embargo(config, name))
            for symbol, index in times.items()
        }
        for name in _SPANS
    }
    check_cuts(times, {str(name): parts for name, parts in decisions.items()}, horizon=model.horizon)
    rows = {name: windows.rows(decisions[name], inside=bars.inside) for name in _SPANS}
    for name, taken in rows.items():
        if len(taken) == 0:
            start, end = config.spans.get(name)
            labelled = sum(part.stop - part.start for part in decisions[name].values())
            outside = "" if bars.inside is None else "at which its symbol is a member of the universe, and "
            found = min(index[0] for index in times.values() if len(index)), max(index[-1] for index in times.values())
            raise ConfigError(
                f"spans.{name}: {start} to {end} holds {labelled} labelled bars, none of them {outside}with the "
                f"{windows.memory - 1} bars before it that a window needs; the data run from {found[0]:%Y-%m-%d} to "
                f"{found[1]:%Y-%m-%d}: move the span, or shorten model.lookback"
            )
    return rows


def _embargo(config: RunConfig, name: SpanName) -> int:
    return 0 if name == "test" else config.training.embargo


def _find_trained(config: RunConfig, bars: Bars, *, root: Path) -> Bundle | None:
    """The valid bundle of the same request and the same training bars, if there is one; a damaged one is replaced."""
    try:
        bundle = load_bundle(find_bundle(config, root / "bundles"))
    except BundleError:
        return None
    record = bundle.record
    same_bars = record.training_bars == training_bars(bars, config.spans, memory=record.memory)
    return bundle if same_bars and record.hash == bundle_hash(config) else None


def _fit_bundle(
    config: RunConfig,
    model: LstmConfig,
    bars: Bars,
    windows: Windows,
    rows: Mapping[SpanName, Rows],
    *,
    root: Path,
    progress: bool,
) -> Bundle:
    from models.training import fit  # Lightning takes seconds to import: only where a network is fitted

    fitted = fit(
        lambda: build_network(model),
        windows,
        train_rows=rows["train"],
        validation_rows=rows["validate"],
        config=config.training,
        progress=progress,
    )
    labels = windows.labels[rows["train"]]
    bundles = root / "bundles"
    return new_bundle(config, fitted.network, curve=fitted.curve, bars=bars, train_labels=labels, root=bundles)


def _evaluate(bundle: Bundle, bars: Bars, config: RunConfig) -> Mapping[str, float | None]:
    frame = forecast_frame(bars, Forecaster(bundle), config.spans.test)
    return score_frame(frame, train_mean=bundle.record.train_mean, train_naive_mae=bundle.record.train_naive_mae)


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
    *,
    reused: bool,
    rows: Mapping[SpanName, Rows],
    bars: Bars,
) -> TrainingReport:
    seen = bundle.record.training_bars
    fitted = {symbol: bars.frames[symbol].loc[own.first : own.last] for symbol, own in seen.items() if own.bars}
    return TrainingReport(
        path=bundle.path,
        hash=bundle.record.hash,
        evaluation=evaluation,
        epochs=len(bundle.curve),
        best_epoch=min(bundle.curve, key=lambda point: point.validation_loss).epoch,
        reused=reused,
        parameters=sum(parameter.numel() for parameter in bundle.network.parameters()),
        memory=bundle.record.memory,
        windows={name: len(taken) for name, taken in rows.items()},
        training_bars={symbol: own.bars for symbol, own in seen.items()},
        data_hash=bars.content_hash,
        remarks=tuple(cleaning(within(bars.quality, fitted))),
    )

"""Training by walk-forward: fitting, scoring and writing the bundle of all folds, and what is told of each."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.data.folds import sessions_between
from models.bundle import Bundle, evaluated
from models.bundle_files import member_folder, write_bundle
from models.curve import best_epoch
from models.evaluation import forecast_frame, score_frame
from models.fitting.bundles import decisions_of, window_counts
from models.fitting.walk_forward import FittedFold, fit_walk_forward, fold_configs, fold_store
from models.forecaster import Forecaster

Span = tuple[date, date]
Figures = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class FoldReport:
    """One fold of a walk-forward.

    Attributes:
        train, validate, test: first and last session of each part.
        takes_over: the session of the first bar that its model decides on.
        windows: windows in each part.
        epochs: epochs run. best_epoch: the one whose weights were kept.
        reused: its model was there already, from a training that was cut off, or all of them were.
        evaluation: figures of its own model on its test sessions.
    """

    train: Span
    validate: Span
    test: Span
    takes_over: date
    windows: Mapping[str, int]
    epochs: int
    best_epoch: int
    reused: bool
    evaluation: Figures


class WalkForward(NamedTuple):
    """A walk-forward bundle as it was written, its figures over all test sessions, and its folds."""

    bundle: Bundle
    evaluation: Figures
    folds: tuple[FoldReport, ...]


def train_walk_forward(
    config: RunConfig,
    bars: Bars,
    *,
    path: Path,
    progress: bool = False,
    force: bool = False,
    on_note: Callable[[str], None] = lambda sentence: None,
) -> WalkForward:
    """Fit a model for each fold of the run file, score them, and write them as one bundle at ``path``.

    A training that was cut off goes on with the first fold that is missing, and comes to the same bytes.

    Args:
        force: fit all folds anew.
        on_note: is told of each fold, in a sentence.

    Raises:
        ConfigError: the folds do not fit the data, or the model; names the YAML path.
        DataError: a label reaches over a cut.
        StorageError: a fold or the bundle could not be written, or another process trains the same.
        KeyboardInterrupt: on Ctrl-C; says how many folds are kept.
    """
    configs = fold_configs(config, bars)  # what is wrong with them is said before there is a folder
    with fold_store(path) as store:
        if force:
            store.drop(configs)
        bundle, fitted = fit_walk_forward(
            config, bars, store=store, progress=progress, on_fold=lambda fold: on_note(_sentence(fold))
        )
        scored = score_walk_forward(bundle, bars)
        members = tuple(
            replace(evaluated(member, figures), path=path / member_folder(position))
            for position, (member, figures) in enumerate(zip(bundle.members, scored.members, strict=True))
        )
        written = write_bundle(evaluated(replace(bundle, members=members), scored.all))
        store.clear()
    reused = [fold.reused for fold in fitted]
    return WalkForward(written, scored.all, fold_reports(config, written, bars, scored.members, reused))


def trained_before(config: RunConfig, bundle: Bundle, bars: Bars) -> WalkForward:
    """What is told of a walk-forward bundle that was there already; scored as the bars are now."""
    scored = score_walk_forward(bundle, bars)
    folds = fold_reports(config, bundle, bars, scored.members, [True] * len(bundle.members))
    return WalkForward(bundle, scored.all, folds)


class Scores(NamedTuple):
    """Figures of a walk-forward bundle over all test sessions, and of each member on its own."""

    all: Figures
    members: tuple[Figures, ...]


def score_walk_forward(bundle: Bundle, bars: Bars) -> Scores:
    """A walk-forward bundle's figures as the bars are now; a session that several folds test counts once."""
    spans = [member.record.spans.test for member in bundle.members]
    members = tuple(
        _score(Forecaster(member), bars, [span]) for member, span in zip(bundle.members, spans, strict=True)
    )
    return Scores(_score(Forecaster(bundle), bars, _union(spans, bars)), members)


def _score(forecaster: Forecaster, bars: Bars, spans: Sequence[Span]) -> Figures:
    record = forecaster.bundle.record
    frame = pd.concat([forecast_frame(bars, forecaster, span) for span in spans], ignore_index=True)
    return score_frame(frame, train_mean=record.train_mean, train_naive_mae=record.train_naive_mae)


def _union(spans: Sequence[Span], bars: Bars) -> list[Span]:
    """Stretches that cover the spans, which are in order; those without a session between them are one."""
    times = {symbol: pd.DatetimeIndex(frame.index) for symbol, frame in bars.frames.items()}
    sessions = sessions_between(times, (spans[0][0], spans[-1][1]))
    found: list[Span] = []
    for first, last in spans:
        if found and bisect_left(sessions, first) <= bisect_right(sessions, found[-1][1]):
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def fold_reports(
    config: RunConfig, bundle: Bundle, bars: Bars, evaluations: Sequence[Figures], reused: Sequence[bool]
) -> tuple[FoldReport, ...]:
    """What is told of each fold of a walk-forward bundle."""
    reports = []
    for own, member, evaluation, is_reused in zip(
        fold_configs(config, bars), bundle.members, evaluations, reused, strict=True
    ):
        spans, record = own.spans, member.record
        counts = window_counts(decisions_of(own, record.model, bars), bars, memory=record.memory)
        reports.append(
            FoldReport(
                train=spans.get("train"),
                validate=spans.get("validate"),
                test=spans.test,
                takes_over=spans.test[0],
                windows={str(name): count for name, count in counts.items()},
                epochs=len(member.curve),
                best_epoch=best_epoch(member.curve),
                reused=is_reused,
                evaluation=evaluation,
            )
        )
    return tuple(reports)


def _sentence(fold: FittedFold) -> str:
    spans, curve = fold.config.spans, fold.bundle.curve
    train, validate = spans.get("train"), spans.get("validate")
    epochs = f" (best of {len(curve)} epochs: {best_epoch(curve)})" if curve else ""
    how = ", was there already" if fold.reused else epochs
    return (
        f"fold {fold.number} of {fold.count}: trained {train[0]} to {train[1]}, chosen until {validate[1]}, decides "
        f"from {spans.test[0]}{how}"
    )

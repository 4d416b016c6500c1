"""Fitting an ensemble: its members one by one, and the weights that combine them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from engine.config import FoldsConfig, RunConfig, Spans
from engine.data.bars import Bars
from engine.data.cuts import labelled_slice, session_bounds
from engine.data.folds import folds_of, sessions_between
from engine.errors import BundleError, ConfigError
from engine.model_sections import EnsembleConfig
from engine.sections import Section
from models.bundle import Bundle, as_fitted_now, evaluated, find_bundle, new_bundle
from models.bundle_files import load_bundle
from models.features import Columns, Floats, parse_features
from models.fitting.bundles import Decisions, decisions_of, fit_bundle
from models.forecaster import predictor_of
from models.memory import memory_of
from models.windows import Windows

# The training span in eight parts: four to forecast out of fold, one before each to choose on, three to begin with.
_PARTS, _FORECAST = 8, 4

Weights = Mapping[str, tuple[float, ...]]


def fit_ensemble(
    config: RunConfig,
    model: EnsembleConfig,
    bars: Bars,
    *,
    root: Path,
    progress: bool = False,
    start: Bundle | None = None,
) -> Bundle:
    """Fit the members and what combines them; see ``models.fitting.bundles.fit_bundle``.

    A member whose own bundle lies in ``root``, of the same request, bars and versions, is taken from there.

    Raises:
        ConfigError: as ``fit_bundle``, or the training span is too short for out-of-fold forecasts.
    """
    decisions = decisions_of(config, model, bars)
    before = (None,) * len(model.members) if start is None else start.members
    members = [
        _member(_of_member(config, section), bars, root=root, progress=progress, start=earlier)
        for section, earlier in zip(model.members, before, strict=True)
    ]
    combination: Weights | None = None
    if model.combine == "weighted":
        combination = inverse_error_weights(forecasts_at(members, model, bars, decisions["validate"]))
    elif model.combine == "stacked":
        combination = stacked_weights(joined(out_of_fold(config, model, bars, root=root, progress=progress)))
    labels, rows = _labelled(model, bars, decisions["train"])
    return new_bundle(
        config,
        None,
        bars=bars,
        train_labels=labels[rows, 0],
        root=root,
        members=members,
        combination=combination,
    )


def _of_member(config: RunConfig, section: Section) -> RunConfig:
    return config.model_copy(update={"model": section})


def _member(config: RunConfig, bars: Bars, *, root: Path, progress: bool, start: Bundle | None) -> Bundle:
    """A fitted member, the same whether it lay there or not: what it scored on the test span is no part of it."""
    if start is None and (found := _lying_there(config, bars, root)) is not None:
        return evaluated(found, {})
    return fit_bundle(config, bars, root=root, progress=progress, start=start)


def _lying_there(config: RunConfig, bars: Bars, root: Path) -> Bundle | None:
    try:
        bundle = load_bundle(find_bundle(config, root))
    except BundleError:
        return None
    return bundle if as_fitted_now(bundle, config, bars) else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Forecasts:
    """What members forecast, and what came.

    Attributes:
        times: end of each decision bar, UTC ns, [rows].
        values: log returns, [rows, members, horizons].
        labels: what came, [rows, horizons].
        horizons: bars ahead.
    """

    times: np.ndarray[tuple[int], np.dtype[np.int64]]
    values: Floats
    labels: Floats
    horizons: tuple[int, ...]


def joined(parts: Iterator[tuple[Spans, Forecasts]]) -> Forecasts:
    """The forecasts of several folds, one after the other."""
    made = [forecasts for _, forecasts in parts]
    return Forecasts(
        times=np.concatenate([part.times for part in made]),
        values=np.concatenate([part.values for part in made]),
        labels=np.concatenate([part.labels for part in made]),
        horizons=made[0].horizons,
    )


def forecasts_at(
    members: Sequence[Bundle], model: EnsembleConfig, bars: Bars, decisions: Mapping[str, slice]
) -> Forecasts:
    """The members' forecasts at decision bars of which each has all the bars that it needs, and a label."""
    labels, rows = _labelled(model, bars, decisions)
    values = np.full((len(labels), len(members), len(model.horizons)), np.nan)
    for place, member in enumerate(members):
        for at in range(len(model.horizons)):
            predictor, first = predictor_of(member, at), 0
            for symbol, frame in bars.frames.items():
                taken = decisions[symbol]
                begin = max(0, taken.start - predictor.memory + 1)
                made = predictor.series(Columns.of(frame.iloc[begin : taken.stop]))[taken.start - begin :, 0]
                values[first + taken.start : first + taken.stop, place, at] = made
                first += len(frame)
    ends = [pd.DatetimeIndex(frame.index).as_unit("ns").asi8 for frame in bars.frames.values()]
    return Forecasts(
        times=np.concatenate(ends)[rows], values=values[rows], labels=labels[rows], horizons=model.horizons
    )


def _labelled(model: EnsembleConfig, bars: Bars, decisions: Mapping[str, slice]) -> tuple[Floats, np.ndarray]:
    """Labels [bars of all symbols, horizons], and the rows of the decision bars at which all members can forecast."""
    weekday = parse_features(("weekday",), close_only=bars.close_only)  # a feature of one bar: rows need no more
    memory = max(memory_of(member, close_only=bars.close_only) for member in model.members)
    windows = Windows.build(bars, weekday, lookback=memory, horizons=model.horizons, target=model.target)
    return windows.labels.astype(np.float64), windows.rows(decisions, inside=bars.inside)


def out_of_fold(
    config: RunConfig, model: EnsembleConfig, bars: Bars, *, root: Path, progress: bool = False
) -> Iterator[tuple[Spans, Forecasts]]:
    """Forecasts of bars of the training span by members that were fitted and chosen on earlier bars of it alone.

    The second half of the span in four parts; before each, the members are fitted anew on all that lies before, the
    last eighth of the span being what they are chosen on. No label reaches over a cut, by the longest horizon, and no
    bar after the training span, nor one of the last ``training.embargo`` in it, is looked at.

    Returns:
        Fold by fold: the spans, of which ``test`` is forecast, and the forecasts.

    Raises:
        ConfigError: the training span is too short.
    """
    # Weights are found from forecasts alone: no interval needs outcomes to be calibrated on.
    plain = tuple(member.model_copy(update={"calibration": "none"}) for member in model.members)
    model = model.model_copy(update={"members": plain})
    span = config.spans.get("train")
    seen = bars.between(None, session_bounds(span)[1])
    times = {symbol: pd.DatetimeIndex(frame.index) for symbol, frame in seen.frames.items()}
    sessions = sessions_between(times, span)
    part = len(sessions) // _PARTS
    if not part:
        raise _too_short(config, f"it has {len(sessions)} sessions")
    section = FoldsConfig(kind="expanding", train=len(sessions) - (_FORECAST + 1) * part, validate=part, test=part)
    longest, embargo = max(model.horizons), config.training.embargo
    stops = {s: labelled_slice(own, span, horizon=longest, embargo=embargo).stop for s, own in times.items()}
    for fold in folds_of(section, sessions):
        spans = Spans(train=fold.train[0], validate=fold.validate[0], test=fold.test[0])
        inner = config.model_copy(update={"spans": spans})
        try:
            decisions: Decisions = decisions_of(inner, model, seen)
            members = [
                fit_bundle(_of_member(inner, member), seen, root=root, progress=progress) for member in model.members
            ]
        except ConfigError as error:
            raise _too_short(config, str(error)) from None
        tested = {
            symbol: slice(taken.start, max(taken.start, min(taken.stop, stops[symbol])))
            for symbol, taken in decisions["test"].items()
        }
        yield spans, forecasts_at(members, model, seen, tested)


def _too_short(config: RunConfig, found: str) -> ConfigError:
    start, end = config.spans.get("train")
    return ConfigError(
        f"model.combine: stacked fits the members on parts of spans.train, expected eight that hold windows, found too "
        f"little in {start} to {end} ({found}); lengthen the span, or use weighted"
    )


def inverse_error_weights(forecasts: Forecasts) -> dict[str, tuple[float, ...]]:
    """Weights proportional to 1 / mean squared error, horizon by horizon (Bates & Granger 1969, errors uncorrelated).

    Returns:
        Horizon -> one weight a member, summing to one. Members without any error share all of it.
    """
    weights = {}
    for at, horizon in enumerate(forecasts.horizons):
        errors = [float(np.mean((forecasts.labels[:, at] - own) ** 2)) for own in forecasts.values[:, :, at].T]
        if min(errors) > 0.0:
            inverse = [min(errors) / error for error in errors]
        else:
            inverse = [1.0 if error == 0.0 else 0.0 for error in errors]
        weights[str(horizon)] = tuple(one / sum(inverse) for one in inverse)
    return weights


def stacked_weights(forecasts: Forecasts) -> dict[str, tuple[float, ...]]:
    """Non-negative least squares of what came on the forecasts, horizon by horizon (Breiman 1996).

    There is no intercept, and weights need not sum to one: where no member forecast anything, all are near zero, and
    the ensemble says that the price stays where it is.

    Returns:
        Horizon -> one weight a member, at least 0.
    """
    from scipy.optimize import nnls  # a while to import, and only for this

    weights = {}
    for at, horizon in enumerate(forecasts.horizons):
        values, labels = forecasts.values[:, :, at], forecasts.labels[:, at]
        scale = float(np.sqrt(np.mean(labels**2))) or 1.0
        found, _ = nnls(values / scale, labels / scale)
        weights[str(horizon)] = tuple(float(one) for one in found)
    return weights

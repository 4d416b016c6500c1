"""From a run file and its bars to a fitted bundle: the one way, for training, folds, ensembles, tuning and ranking."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from engine.config import RunConfig, SpanName
from engine.data.bars import Bars
from engine.data.cuts import check_cuts, labelled_slice
from engine.errors import ConfigError
from engine.model_sections import EnsembleConfig, ModelSection
from models.bundle import Bundle, new_bundle, own_model
from models.calibration import calibrated
from models.features import parse_features
from models.memory import forecast_memory
from models.windows import Windows

SPANS: tuple[SpanName, ...] = ("train", "validate", "test")

Decisions = Mapping[SpanName, Mapping[str, slice]]


def fit_bundle(
    config: RunConfig,
    bars: Bars,
    *,
    root: Path,
    progress: bool = False,
    start: Bundle | None = None,
    learned: Collection[str] | None = None,
) -> Bundle:
    """Fit the run file's model on its train and validate spans; the bundle is neither scored nor written yet.

    Args:
        config: the run file, whose model section describes the model.
        bars: all of its bars; none after the validation span changes the fit.
        root: the folder that will hold the bundle's folder.
        progress: show a progress bar on stderr, if that is a terminal.
        start: a fitted bundle of the same model to go on from.
        learned: the symbols whose windows are learned from, of a model that is no ensemble; the others only count among
            those that excesses are over. All of them, if None.

    Raises:
        ConfigError: a span is missing, or there are too few bars for a window; names the YAML path.
        DataError: a label reaches over a cut.
        KeyboardInterrupt: on Ctrl-C; nothing half-written is left.
    """
    fitted = _fitted(config, bars, root=root, progress=progress, start=start, learned=learned)
    return calibrated(fitted, config, bars)


def _fitted(
    config: RunConfig,
    bars: Bars,
    *,
    root: Path,
    progress: bool,
    start: Bundle | None,
    learned: Collection[str] | None,
) -> Bundle:
    """The bundle before its intervals are calibrated."""
    model = own_model(config)
    if isinstance(model, EnsembleConfig):
        from models.fitting.ensembles import fit_ensemble  # which fits its members here

        return fit_ensemble(config, model, bars, root=root, progress=progress, start=start)
    decisions = decisions_of(config, model, bars)
    # What fits loads libraries that take seconds: only where a model is fitted.
    from models.fitting import fit
    from models.fitting.task import Task

    features = parse_features(model.features, close_only=bars.close_only)
    windows = Windows.build(bars, features, lookback=model.lookback, horizons=model.horizons, target=model.target)
    rows = {}
    for name in SPANS[:2]:
        own = {s: part for s, part in decisions[name].items() if learned is None or s in learned}
        rows[name] = windows.rows(own, inside=bars.inside)
    for name, taken in rows.items():
        if not len(taken):  # windows there are: it is others to compare with that there are not
            raise ConfigError(
                f"model.target: excess is that over the median of all symbols, and in spans.{name} no bar has a second "
                "symbol beside it; add symbols, or use target: return"
            )
    fitted = fit(
        Task(
            model=model,
            windows=windows,
            train_rows=rows["train"],
            validation_rows=rows["validate"],
            training=config.training,
            start=None if start is None else start.network,
            progress=progress,
        )
    )
    labels = windows.labels[rows["train"], 0]
    return new_bundle(config, fitted.network, curve=fitted.curve, bars=bars, train_labels=labels, root=root)


def decisions_of(config: RunConfig, model: ModelSection, bars: Bars) -> dict[SpanName, dict[str, slice]]:
    """The decision bars of each span whose labels stay inside it; every span has one with a complete window.

    Returns:
        Span -> symbol -> positions in the symbol's own bars. The first ones may lack the bars before them that a
        window needs, and of a universe they may be outside it.

    Raises:
        ConfigError: a span is missing, or holds no bar with a complete window and a label.
        DataError: a label reaches over a cut.
    """
    memory, longest = forecast_memory(model, close_only=bars.close_only), max(model.horizons)
    _check_length(model, bars, memory, longest)
    times = {symbol: pd.DatetimeIndex(frame.index) for symbol, frame in bars.frames.items()}
    decisions = {
        name: {
            symbol: labelled_slice(index, config.spans.get(name), horizon=longest, embargo=_embargo(config, name))
            for symbol, index in times.items()
        }
        for name in SPANS
    }
    check_cuts(times, {str(name): parts for name, parts in decisions.items()}, horizon=longest)
    for name, count in window_counts(decisions, bars, memory=memory).items():
        if count:
            continue
        start, end = config.spans.get(name)
        labelled = sum(part.stop - part.start for part in decisions[name].values())
        outside = "" if bars.inside is None else "at which its symbol is a member of the universe, and "
        found = min(index[0] for index in times.values() if len(index)), max(index[-1] for index in times.values())
        raise ConfigError(
            f"spans.{name}: {start} to {end} holds {labelled} labelled bars, none of them {outside}with the "
            f"{memory - 1} bars before it that a window needs; the data run from {found[0]:%Y-%m-%d} to "
            f"{found[1]:%Y-%m-%d}: move the span, or shorten model.lookback"
        )
    return decisions


def window_counts(decisions: Decisions, bars: Bars, *, memory: int) -> dict[SpanName, int]:
    """Span -> decision bars with a complete window; of a universe, those at which the symbol was a member.

    Who will join later is chosen in hindsight.
    """
    counts: dict[SpanName, int] = {}
    for name, parts in decisions.items():
        counts[name] = 0
        for symbol, taken in parts.items():
            first = max(taken.start, memory - 1)
            inside = bars.inside
            kept = (
                max(0, taken.stop - first) if inside is None else np.count_nonzero(inside[symbol][first : taken.stop])
            )
            counts[name] += int(kept)
    return counts


def _check_length(model: ModelSection, bars: Bars, memory: int, longest: int) -> None:
    symbol, most = max(((symbol, len(frame)) for symbol, frame in bars.frames.items()), key=lambda item: item[1])
    if most < memory + longest:
        raise ConfigError(
            f"model.lookback: one window and its label need {memory + longest} bars (memory {memory}, horizon "
            f"{longest}), and the longest series, {symbol}, has {most}; shorten the lookback, or use more bars"
        )


def _embargo(config: RunConfig, name: SpanName) -> int:
    return 0 if name == "test" else config.training.embargo

"""The folds of a search, and the seal on the test span: what is tried sees no bar after the last validation session."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pandas as pd

from engine.config import RunConfig, Spans
from engine.data.bars import Bars
from engine.data.cuts import session_bounds
from engine.data.folds import Span, folds_of, sessions_between, training_of_fold
from engine.data.sources import load_bars
from engine.errors import ConfigError
from engine.model_sections import BundleReference
from engine.tune_section import TuneConfig

# Of the training sessions of a fold at most so many choose when to stop, so that what is scored chooses nothing.
_STOPPING_PART = 5


def sealed_bars(config: RunConfig, *, root: Path) -> Bars:
    """The run file's bars without those of what is tested and later: they are cut off before anything is done.

    That is the test span, or the first fold's test where the folds are what is tested, see ``folds_are_tested``.

    Raises:
        ConfigError, DataError: as ``load_bars``.
    """
    bars = _bars_until(config, last_session(config), root=root)
    section = config.folds
    if section is None or not folds_are_tested(config):
        return bars
    learned, sessions = (section.train or 0) + (section.validate_ or 0), _sessions(config, bars)
    # Loaded anew, so that cleaning knows no later bar either.
    return bars if len(sessions) <= learned else _bars_until(config, sessions[learned - 1], root=root)


def folds_are_tested(config: RunConfig) -> bool:
    """Whether folds test what is found, from the first one on: in a walk-forward, and in ``nextbar models``."""
    walks = config.folds is not None and config.folds.kind != "combinatorial"
    return walks and (config.training.walk_forward or config.models is not None)


def _bars_until(config: RunConfig, last: date, *, root: Path) -> Bars:
    bars = load_bars(config.data, config.folder, root=root, within=(config.spans.extent[0], last))
    _, until = session_bounds((last, last))
    return bars.between(end=until)


def _sessions(config: RunConfig, bars: Bars) -> tuple[date, ...]:
    times = {symbol: pd.DatetimeIndex(frame.index) for symbol, frame in bars.frames.items()}
    return sessions_between(times, (config.spans.extent[0], last_session(config)))


def last_session(config: RunConfig) -> date:
    """The last session before the test span that a search may know: that of the validation span, or the day before."""
    validate = config.spans.named()["validate"]
    return validate[1] if validate is not None else config.spans.test[0] - timedelta(days=1)


def tuning_folds(config: RunConfig, tune: TuneConfig, bars: Bars) -> tuple[Spans, ...]:
    """The spans of each fold in the order of time; what they call test is the validation part that is scored.

    Of tested folds only the first one's sessions before its test are there: those are cut into ``tune.folds``.

    Each fits on the first part of its training sessions and chooses when to stop on the last fifth of them at most.

    Args:
        bars: those of ``sealed_bars``.

    Raises:
        ConfigError: the folds have no validation part, or none of them fits before the test span; names the YAML path.
    """
    sessions = _sessions(config, bars)
    if config.folds is None:
        validate = config.spans.get("validate")
        config.spans.get("train")
        size = sum(validate[0] <= session <= validate[1] for session in sessions)
        found = _expanding(tune, sessions, size, before="the test span", shorter="the validate span")
    elif folds_are_tested(config) and config.folds.validate_:
        before, shorter = "the first fold's test", "folds.validate"
        found = _expanding(tune, sessions, config.folds.validate_, before=before, shorter=shorter)
    else:
        found = _own_folds(config, sessions)
    return tuple(_spans(sessions, train, validate) for train, validate in found)


def _own_folds(config: RunConfig, sessions: tuple[date, ...]) -> list[tuple[Span, Span]]:
    """Training and validation parts of the run file's folds, laid out as with their tests."""
    section = config.folds
    if section is None or section.kind == "combinatorial" or not section.validate_:
        raise ConfigError(
            "folds: a search is scored on the validation parts of sliding or expanding folds, and these have none; add "
            "validate, or remove folds for some within the train and validate spans"
        )
    # What is validated here is tested by nobody: the layout is that of the run file, and ends before its test span.
    step = section.step or section.test
    laid_out = section.model_copy(update={"test": section.validate_, "validate_": None, "step": step})
    return [(fold.train[0], fold.test[0]) for fold in folds_of(laid_out, sessions)]


def _expanding(
    tune: TuneConfig, sessions: tuple[date, ...], size: int, *, before: str, shorter: str
) -> list[tuple[Span, Span]]:
    """Folds of ``size`` validation sessions, the last ones at the end, each trained on all before it."""
    starts = [len(sessions) - size * number for number in range(tune.folds, 0, -1)]
    if not size or starts[0] < size:
        raise ConfigError(
            f"tune.folds: {tune.folds} folds of {size:,} validation sessions leave less than as many to train on, of "
            f"{len(sessions):,} before {before}; ask for fewer folds, or shorten {shorter}"
        )
    return [((sessions[0], sessions[at - 1]), (sessions[at], sessions[at + size - 1])) for at in starts]


def _spans(sessions: tuple[date, ...], train: Span, validate: Span) -> Spans:
    learned = [session for session in sessions if train[0] <= session <= train[1]]
    scored = sum(validate[0] <= session <= validate[1] for session in sessions)
    stopping = max(1, min(scored, len(learned) // _STOPPING_PART))
    if len(learned) < 2:
        raise ConfigError(f"folds.train: expected at least 2 sessions to train on, found {len(learned)}; raise it")
    return Spans.model_validate(
        {
            "train": (learned[0], learned[-stopping - 1]),
            "validate": (learned[-stopping], learned[-1]),
            "test": validate,
        }
    )


def in_fold(config: RunConfig, spans: Spans) -> RunConfig:
    """What is tried, on the spans of a fold, with the purge and the embargo of ``folds``."""
    described = None if isinstance(config.model, BundleReference) else config.model
    longest = 0 if described is None else max(described.horizons)
    training = training_of_fold(config.training, config.folds, longest=longest).model_copy(update={"warm_start": False})
    return config.model_copy(update={"spans": spans, "folds": None, "training": training})

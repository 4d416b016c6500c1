"""The use case behind ``nextbar models``: kinds of models fitted and judged on the same folds, rows and seeds."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.data.cuts import with_history
from engine.data.sources import load_bars
from engine.errors import ConfigError
from engine.model_sections import MODEL_KINDS, EnsembleConfig, ModelSection
from engine.models_section import ModelsConfig
from engine.preparation import buy_and_hold
from engine.ranking_jobs import Job, Outcome, run_jobs
from engine.ranking_speeds import speeds_of
from engine.report.leaderboard import Leaderboard, Trial, leaderboard
from engine.report.metrics import performance, periods_per_year
from engine.report.ranking import Ranking
from engine.report.ranking_page import render_ranking
from engine.report.recording import portable
from engine.report.run import plain, rename_to_free, safe_name, stamp, stored
from engine.report.tear_sheet import FLAGS
from engine.report.trials import append_trial
from engine.sections import digest, dump
from models.fitting import by_gradients
from models.fitting.walk_forward import fold_configs

FOLDER = "rankings"
BASELINES = ("zero", "mean", "last_return")

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class RankingReport:
    """A ranking that has been written: its page, what it shows, and how many models were fitted now, and before."""

    path: Path
    ranking: Ranking
    fitted: int
    reused: int

    def to_json(self) -> dict[str, Any]:
        """The ranking and where it was written, as one JSON-ready object."""
        return {**self.ranking.to_json(), "report": str(self.path), "fitted": self.fitted, "reused": self.reused}


def rank(
    config: RunConfig,
    *,
    root: Path = Path(),
    now: datetime,
    processes: int = 2,
    fresh: bool = False,
    on_progress: Progress | None = None,
) -> RankingReport:
    """Fit every kind on every fold, judge them on the rows that they have in common, and write the leaderboard.

    Fitted models are kept in ``bundles/ranked``, so that a ranking that was cut off goes on, and one that is repeated
    only forecasts. Each look at a test span is counted as a trial.

    Args:
        config: the run file, with ``models``; folds of ``folds``, else one of ``spans``.
        root: the folder that holds ``bundles/`` and ``runs/``.
        now: the moment that names the folder and is written into the ledger of trials.
        processes: how many fit side by side.
        fresh: fit everything anew.
        on_progress: called with (models done, models in all).

    Raises:
        ConfigError: no ``models``, or such as cannot be fitted here; names the kind and the fold.
        DataError: bars are missing or malformed.
        StorageError: a bundle or the page cannot be written.
        KeyboardInterrupt: on Ctrl-C; the models that are fitted are kept.
    """
    if config.models is None:
        raise ConfigError(
            "models: the run file does not say which models to rank; add kinds, as in configs/models.yaml"
        )
    if processes < 1:
        raise ConfigError(f"--processes: expected at least 1, found {processes}")
    kinds = with_baselines(config.models)
    bars = load_bars(config.data, config.folder, root=root, within=config.spans.extent)
    jobs = _jobs(config, kinds, bars)
    outcomes = []
    try:
        for outcome in run_jobs(jobs, bars, root=root, processes=processes, fresh=fresh):
            outcomes.append(outcome)
            append_trial(root / "runs", _trial(outcome, bars, now))
            if on_progress is not None:
                on_progress(len(outcomes), len(jobs))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; what was fitted of {len(jobs)} models is kept, and the same command goes on from there"
        ) from None
    board = leaderboard(
        [_judged(outcome) for outcome in _of_one_target(outcomes)],
        baselines=_baseline_labels(kinds),
        horizon=_horizon(kinds),
        bars=bars,
        held=[_held(fold, bars) for fold in _configs_of_folds(jobs)],
    )
    ranking = _ranking(config, kinds, bars, jobs, outcomes, board)
    return RankingReport(
        path=_write(ranking, config, home=root / "runs" / FOLDER, now=now),
        ranking=ranking,
        fitted=sum(not outcome.reused for outcome in outcomes),
        reused=sum(outcome.reused for outcome in outcomes),
    )


def with_baselines(section: ModelsConfig) -> dict[str, ModelSection]:
    """Label -> model: the naive forecasts first, under the run file's labels where it has them, then the others."""
    given: dict[str, ModelSection] = dict(section.kinds)
    one = next(iter(given.values()))
    kinds: dict[str, ModelSection] = {}
    for kind in BASELINES:
        label = next((label for label, model in given.items() if model.kind == kind), kind)
        if label in given and given[label].kind != kind:
            raise ConfigError(
                f"models.kinds.{label}: the label is that of the naive forecast, expected kind: {kind}, found "
                f"{given[label].kind}; choose another label"
            )
        kinds[label] = given.get(label) or MODEL_KINDS[kind].model_validate({"kind": kind, "horizon": one.horizon})
    return {**kinds, **{label: model for label, model in given.items() if label not in kinds}}


def _horizon(kinds: Mapping[str, ModelSection]) -> int:
    """The one that all of them have."""
    return next(iter(kinds.values())).horizon


def _baseline_labels(kinds: Mapping[str, ModelSection]) -> list[str]:
    return [label for label, model in kinds.items() if model.kind in BASELINES][: len(BASELINES)]


def _jobs(config: RunConfig, kinds: Mapping[str, ModelSection], bars: Bars) -> list[Job]:
    """Fold by fold, kind by kind, seed by seed; what is not drawn by chance has the first seed alone."""
    models = config.models
    seeds = (models.seeds if models else None) or (config.training.seed,)
    jobs = []
    for label, model in kinds.items():
        bare = config.model_copy(update={"model": model, "models": None, "folds": None})
        training = config.training.model_copy(update={"walk_forward": False, "warm_start": False})
        bare = bare.model_copy(update={"training": training})
        folds = [bare]
        if config.folds is not None:
            folds = list(fold_configs(bare.model_copy(update={"folds": config.folds}), bars))
        for fold, own in enumerate(folds):
            for seed in seeds if _by_chance(model) else seeds[:1]:
                seeded = own.training.model_copy(update={"seed": seed})
                jobs.append(Job(label=label, fold=fold, seed=seed, config=own.model_copy(update={"training": seeded})))
    return sorted(jobs, key=lambda job: job.fold)


def _by_chance(model: ModelSection) -> bool:
    if isinstance(model, EnsembleConfig):
        return any(_by_chance(member) for member in model.members)
    return by_gradients(model)


def _configs_of_folds(jobs: Sequence[Job]) -> Iterator[RunConfig]:
    for fold in sorted({job.fold for job in jobs}):
        yield next(job.config for job in jobs if job.fold == fold)


def _held(config: RunConfig, bars: Bars) -> pd.Series:
    period = config.spans.test
    used, start, _ = with_history(bars.among(*period), period, warmup=config.data.warmup_bars)
    return buy_and_hold(config, used, start).equity["equity"]


def _of_one_target(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes, the naive ones as forecasts of excesses where the others are: zero, the mean of the training
    excesses, the last excess. Their models know returns only.

    Their intervals, made of errors in returns, are narrowed as mean absolute excesses are to mean absolute returns.
    """
    excesses = {o.job.fold: o for o in outcomes if getattr(o.job.config.model, "target", "return") == "excess"}
    found = []
    for outcome in outcomes:
        kind, other = getattr(outcome.job.config.model, "kind", ""), excesses.get(outcome.job.fold)
        if other is None or kind not in BASELINES:
            found.append(outcome)
            continue
        frame = other.forecasts.copy()
        # Where the naive model had no forecast there is none.
        own = outcome.forecasts.set_index(["time", "symbol"])
        own = own.reindex(pd.MultiIndex.from_frame(frame[["time", "symbol"]])).reset_index(drop=True)
        guess = frame["last_return"].copy()
        if kind != "last_return":
            guess[:] = other.train_mean if kind == "mean" else 0.0
        frame["forecast"] = guess.where(own["forecast"].notna())
        narrowed = other.train_naive_mae / outcome.train_naive_mae if outcome.train_naive_mae > 0.0 else 1.0
        for end in ("lower", "upper"):
            frame[end] = frame["forecast"] + narrowed * (own[end] - own["forecast"])
        found.append(
            replace(outcome, forecasts=frame, train_mean=other.train_mean, train_naive_mae=other.train_naive_mae)
        )
    return found


def _judged(outcome: Outcome) -> Trial:
    return Trial(
        label=outcome.job.label,
        fold=outcome.job.fold,
        seed=outcome.job.seed,
        forecasts=outcome.forecasts,
        train_naive_mae=outcome.train_naive_mae,
        equity=outcome.equity,
        traded=outcome.traded,
    )


def _trial(outcome: Outcome, bars: Bars, now: datetime) -> Mapping[str, Any]:
    """The line of a look at a test span; ``subject`` as in ``report.recording.trial_of``."""
    config = outcome.job.config
    start, end = (str(day) for day in config.spans.test)
    resolved = dump(config)
    tried = {key: resolved.get(key) for key in ("data", "model", "training", "strategy", "broker", "risk")}
    figures = performance(outcome.equity, periods_per_year=periods_per_year(bars.timeframe))
    return {
        "time": now.isoformat(),
        "kind": "models",
        "name": config.name,
        "label": outcome.job.label,
        "subject": digest(tried, [start, end], outcome.weights_hash, outcome.strategy_hash),
        "hashes": {
            "config": digest(resolved),
            "data": bars.content_hash,
            "model": outcome.weights_hash,
            "strategy": outcome.strategy_hash,
        },
        "span": {"name": "test", "start": start, "end": end},
        "sharpe_ratio": figures["sharpe_ratio"],
    }


def _ranking(
    config: RunConfig,
    kinds: Mapping[str, ModelSection],
    bars: Bars,
    jobs: Sequence[Job],
    outcomes: Sequence[Outcome],
    board: Leaderboard,
) -> Ranking:
    spans = [
        {str(n): (str(s[0]), str(s[1])) for n, s in own.spans.named().items() if s is not None}
        for own in _configs_of_folds(jobs)
    ]
    last = {outcome.job.label: outcome for outcome in outcomes}
    return Ranking(
        name=config.name,
        board=board,
        kinds={label: model.kind for label, model in kinds.items()},
        parameters={label: last[label].parameters for label in kinds},
        memory={label: last[label].memory for label in kinds},
        speeds=speeds_of(outcomes, bars),
        folds=tuple(spans),
        strategy=config.strategy.kind,
        symbols=bars.symbols,
        timeframe=bars.timeframe,
        horizon=_horizon(kinds),
        flags=tuple(label for key, label in FLAGS.items() if getattr(bars, key, False)),
        hashes={"config": digest(dump(config)), "data": bars.content_hash},
    )


def _write(ranking: Ranking, config: RunConfig, *, home: Path, now: datetime) -> Path:
    """Write ``home/<UTC time>-<name>/`` with the page and models.json, whole or not at all; the page's path."""
    stem = f"{stamp(now)}-{safe_name(config.name)}"
    page = render_ranking(ranking)
    values = {**ranking.to_json(), "config": plain(portable(config))}
    text = json.dumps(values, sort_keys=True, indent=2, allow_nan=False) + "\n"
    partial = home / f".{stem}.{os.getpid()}.partial"
    with stored(home, "ranking"):
        try:
            home.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            (partial / "models.json").write_text(text, encoding="utf-8", newline="\n")
            (partial / "models.html").write_text(page, encoding="utf-8", newline="\n")
            return rename_to_free(partial, home, stem) / "models.html"
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

"""The use case behind ``nextbar tune``: a run file and a space in, the best run file of that space out.

Every trial is scored on validation folds. Bars of the test span are cut off before anything is fitted, and nothing is
added to the ledger of trials on test spans.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config import RunConfig, Spans
from engine.data.bars import Bars
from engine.errors import ConfigError, NextbarError
from engine.tune_section import TuneConfig
from engine.tuning_folds import in_fold, sealed_bars, tuning_folds
from engine.tuning_scores import LARGER_IS_BETTER
from engine.tuning_space import Parameters, Space
from engine.tuning_study import HASH_LENGTH, TRIALS, Study, study_hash
from engine.tuning_trials import Job, Trial, Trier, best_of, importances, next_job
from engine.tuning_workers import Workers
from strategies.loading import check_strategy
from strategies.rule import Context

Run = Callable[[Sequence[Job]], Iterator[tuple[Trial, float]]]


@dataclass(frozen=True, kw_only=True)
class TuneReport:
    """What a search found.

    Attributes:
        path: its folder. best_config: the best run file in it.
        metric: what was scored, and ``larger_is_better``.
        folds: sessions of the validation parts.
        trials: all of them, by number; ``resumed`` of them were there before.
        best: the one with the best score.
        importances: key -> share of the scores' variance that it explains, the largest first.
        others: folders of other searches of the same name, of another space, model, fold or bars.
    """

    path: Path
    best_config: Path
    metric: str
    larger_is_better: bool
    folds: tuple[tuple[str, str], ...]
    trials: tuple[Trial, ...]
    resumed: int
    best: Trial
    importances: Mapping[str, float]
    others: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """State -> trials."""
        states = ("complete", "pruned", "failed")
        return {state: sum(trial.state == state for trial in self.trials) for state in states}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "study": str(self.path),
            "best_config": str(self.best_config),
            "metric": self.metric,
            "larger_is_better": self.larger_is_better,
            "folds": [list(fold) for fold in self.folds],
            "best": self.best.to_json(),
            "best_of": len(self.trials),
            "states": self.counts(),
            "resumed": self.resumed,
            "importances": dict(self.importances),
            "others": list(self.others),
            "trials": [trial.to_json() for trial in self.trials],
        }


def tune(
    config: RunConfig,
    *,
    root: Path = Path(),
    on_progress: Callable[[int, int], None] | None = None,
    on_remark: Callable[[str], None] = lambda sentence: None,
) -> TuneReport:
    """Search the run file's space, or go on with a search of it, until it has as many trials as asked.

    Args:
        config: the run file.
        root: the folder that holds ``tuning/``.
        on_progress: called with (trials there are, trials asked for).
        on_remark: told whether the search is a new one or goes on.

    Raises:
        ConfigError: no ``tune`` section, or something in it that cannot be, before anything is tried.
        DataError: bars are missing or malformed.
        StorageError: the folder cannot be written, or another process is at it.
        NextbarError: no trial was complete.
        KeyboardInterrupt: on Ctrl-C; the trials so far are kept.
    """
    section = config.tune
    if section is None:
        raise ConfigError(
            "tune: this command needs a space to search, and the run file has none; add one, as in "
            "tune: {space: {model.hidden: [16, 32, 64]}}"
        )
    if config.model is None and section.metric != "sharpe":
        raise ConfigError(
            f"tune.metric: {section.metric} judges forecasts, and the run file has no model; use sharpe, or add one"
        )
    space = Space.of(config, section)
    bars = sealed_bars(config, root=root)
    if section.metric == "rank_ic":
        _check_symbols(bars)
    folds = tuning_folds(config, section, bars)
    strategy_hash = _checked(space, section, bars, folds)
    hashed = study_hash(config, section, bars, folds, strategy_hash)[:HASH_LENGTH]
    study = Study(root / "tuning" / f"{config.name}-{hashed}")
    others = study.others(config.name)
    with study.held():
        study.write_study(config)
        before, left_out = study.read(space, folds=len(folds))
        on_remark(_how_it_begins(study, before, others))
        if left_out:
            lines = "a line is" if left_out == 1 else f"{left_out} lines are"
            on_remark(f"{study.path / TRIALS}: {lines} left out, torn or damaged; those trials are made anew.")
        trials = _search(study, before, space, section, _runner(config, space, section, bars, folds, root), on_progress)
        best = best_of(trials, section)
        if best is None:
            raise NextbarError(
                f"{study.path}: none of {len(trials)} trials was complete; the first: {trials[0].reason}"
            )
        score = f"{section.metric} {best.score:.6g} on {len(folds)} validation folds"
        words = f"{config.name}, trial {best.number}, the best of {len(trials)}: {score}. Train it with nextbar train."
        best_config = study.write_best(named_as_tuned(space.applied(best.parameters)), words)
    return TuneReport(
        path=study.path,
        best_config=best_config,
        metric=section.metric,
        larger_is_better=LARGER_IS_BETTER[section.metric],
        folds=tuple((str(spans.test[0]), str(spans.test[1])) for spans in folds),
        trials=tuple(trials),
        resumed=min(len(before), section.trials),
        best=best,
        importances=importances(space, section, trials),
        others=others,
    )


def named_as_tuned(config: RunConfig) -> RunConfig:
    """Under a name of its own, so that its bundle and runs are told from the others."""
    return config.model_copy(update={"name": f"{config.name[:58]}-tuned"})


def _checked(space: Space, tune: TuneConfig, bars: Bars, folds: Sequence[Spans]) -> str:
    """Check every value against the bars and the strategy; the hash of the strategy's source, where it is judged."""
    config = space.config
    strategy_hash = ""
    if tune.metric == "sharpe":
        strategy_hash = check_strategy(config, Context.of(config, None))
    for path in space.searched:
        for value in space.corners(path):
            changed = space.with_one(path, value)
            if changed is None:
                continue
            try:
                if path.startswith("strategy"):
                    check_strategy(changed, Context.of(changed, None))
                elif path.startswith("model"):
                    _check_windows(in_fold(changed, folds[0]), bars)
            except ConfigError as error:
                raise ConfigError(f"tune.space.{path}: {value!r} cannot be: {error}") from None
    if config.model is not None:
        _check_windows(in_fold(config, folds[0]), bars)
    return strategy_hash


def _check_symbols(bars: Bars) -> None:
    from models.evaluation.information import MINIMUM_SYMBOLS

    if len(bars.symbols) < MINIMUM_SYMBOLS:
        raise ConfigError(
            f"tune.metric: rank_ic ranks {MINIMUM_SYMBOLS} symbols or more against each other, found "
            f"{len(bars.symbols)}; use another metric, or add symbols"
        )


def _check_windows(config: RunConfig, bars: Bars) -> None:
    from models.bundle import own_model
    from models.fitting.bundles import decisions_of

    decisions_of(config, own_model(config), bars)


def _how_it_begins(study: Study, before: Sequence[Trial], others: Sequence[str]) -> str:
    if before:
        return f"Going on with {study.path}, which has {len(before)} trials."
    if others:
        return f"A new search in {study.path}: {', '.join(others)} searched another space, model, folds or bars."
    return f"A new search in {study.path}."


def _search(
    study: Study,
    before: Sequence[Trial],
    space: Space,
    tune: TuneConfig,
    runner: AbstractContextManager[Run],
    on_progress: Callable[[int, int], None] | None,
) -> list[Trial]:
    """Try what is missing of the trials asked for, in rounds of as many as there are workers.

    A trial knows those of the rounds before its own, so that the same number of workers finds the same each time.
    """
    trials = {trial.number: trial for trial in before if trial.number < tune.trials}
    missing = [number for number in range(tune.trials) if number not in trials]
    if not missing:
        return list(trials.values())
    with runner as run:
        for start in range(0, tune.trials, tune.workers):
            known = [trials[number] for number in sorted(trials) if number < start]
            numbers = [number for number in missing if start <= number < start + tune.workers]
            jobs = [next_job(space, tune, number, known) for number in numbers]
            tried = {_key(trial.parameters): trial for trial in reversed(known)}
            fresh = []
            for job in jobs:
                same = tried.get(_key(job.parameters))
                if same is None:
                    fresh.append(job)
                else:  # the same choice once more gives the same
                    trials[job.number] = Trial(
                        number=job.number, state=same.state, parameters=job.parameters, scores=same.scores,
                        reason=same.reason,
                    )  # fmt: skip
                    study.append(trials[job.number], 0.0)
            for trial, seconds in run(fresh):
                study.append(trial, seconds)
                trials[trial.number] = trial
            if on_progress is not None:
                on_progress(len(trials), tune.trials)
    return [trials[number] for number in sorted(trials)]


def _key(parameters: Parameters) -> str:
    return repr(sorted(parameters.items()))


@contextmanager
def _runner(
    config: RunConfig, space: Space, tune: TuneConfig, bars: Bars, folds: Sequence[Spans], root: Path
) -> Iterator[Run]:
    """What tries jobs: this process, or several others."""
    if tune.workers == 1:
        trier = Trier(space, tune, bars, folds)
        yield lambda jobs: map(trier.run, jobs)
        return
    with Workers(config, tune, root=root, data_hash=bars.content_hash) as workers:
        yield workers.run

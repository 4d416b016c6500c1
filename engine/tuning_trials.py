"""The trials of a search: chosen by optuna from those before, tried fold by fold, and kept as plain lines of JSON.

A trial's choice follows from the seed, its number and the trials that it may know, and from nothing else: a search that
was cut off goes on as if it had not been. optuna's own storages are not used: they would keep the same twice.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import optuna

from engine.config import Spans
from engine.data.bars import Bars
from engine.errors import NextbarError
from engine.sections import digest
from engine.tune_section import TuneConfig
from engine.tuning_folds import in_fold
from engine.tuning_scores import LARGER_IS_BETTER, Scorer
from engine.tuning_space import Parameters, Space

State = Literal["complete", "pruned", "failed"]

_TRIED_BEFORE_PRUNING = 5
_STATES = {
    "complete": optuna.trial.TrialState.COMPLETE,
    "pruned": optuna.trial.TrialState.PRUNED,
    "failed": optuna.trial.TrialState.FAIL,
}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One choice and what came of it.

    Attributes:
        number: from 0 on.
        state: ``complete``; ``pruned``, given up half way; ``failed``, where it could not be fitted or run.
        parameters: key of the run file -> value.
        scores: of the folds in the order of time, as far as it came.
        reason: why it failed, else empty.
    """

    number: int
    state: State
    parameters: Parameters
    scores: tuple[float, ...]
    reason: str = ""

    @property
    def score(self) -> float | None:
        """The mean over all folds; None where it was not complete."""
        return sum(self.scores) / len(self.scores) if self.state == "complete" else None

    @property
    def means(self) -> tuple[float, ...]:
        """The mean after each fold."""
        return tuple(sum(self.scores[: at + 1]) / (at + 1) for at in range(len(self.scores)))

    def to_json(self) -> dict[str, Any]:
        """One line of ``trials.jsonl``."""
        return {**asdict(self), "scores": list(self.scores), "score": self.score}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Trial:
        """What ``to_json`` gave.

        Raises:
            KeyError, TypeError, ValueError, OverflowError: of anything else.
        """
        number, state = values["number"], values["state"]
        if type(number) is not int or number < 0 or state not in _STATES:
            raise ValueError(f"expected a trial, found number {number!r} and state {state!r}")
        return cls(
            number=number,
            state=state,
            parameters=dict(values["parameters"]),
            scores=tuple(float(score) for score in values["scores"]),
            reason=str(values["reason"]),
        )

    def may_be_of(self, space: Space, *, folds: int) -> bool:
        """Whether a search of that space on so many folds can have led to this; a damaged file tells other trials."""
        scored = len(self.scores)
        as_many = {"complete": scored == folds, "pruned": 0 < scored < folds, "failed": scored < folds}
        return as_many[self.state] and all(map(math.isfinite, self.means)) and space.holds(self.parameters)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A choice to be tried, and the means of the complete trials that it must keep up with."""

    number: int
    parameters: Parameters
    rivals: tuple[tuple[float, ...], ...]

    def to_text(self) -> str:
        """As a worker is sent it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> Job:
        """What ``to_text`` gave."""
        values = json.loads(text)
        return cls(number=values["number"], parameters=values["parameters"], rivals=tuple(map(tuple, values["rivals"])))


def next_job(space: Space, tune: TuneConfig, number: int, known: Sequence[Trial]) -> Job:
    """The trial of that number, chosen from what is known of others."""
    seed = int(digest(tune.seed, number)[:8], 16)
    sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
    if tune.sampler == "tpe":
        sampler = optuna.samplers.TPESampler(seed=seed)
    study = study_of(space, tune, known, sampler=sampler)
    rivals = tuple(trial.means for trial in known if trial.state == "complete")
    return Job(number=number, parameters=space.suggest(study.ask()), rivals=rivals)


def study_of(
    space: Space, tune: TuneConfig, known: Sequence[Trial], *, sampler: optuna.samplers.BaseSampler | None = None
) -> optuna.Study:
    """optuna's study of the known trials, in memory."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=_direction(tune), sampler=sampler)
    distributions = space.distributions()
    for trial in known:
        study.add_trial(
            optuna.trial.create_trial(
                state=_STATES[trial.state],
                params=space.encoded(trial.parameters),
                distributions={path: distributions[path] for path in trial.parameters},
                intermediate_values=dict(enumerate(trial.means)),
                value=trial.score,
            )
        )
    return study


def best_of(trials: Sequence[Trial], tune: TuneConfig) -> Trial | None:
    """The complete trial with the best score, of equal ones the first."""
    complete = [trial for trial in trials if trial.score is not None]
    sign = -1.0 if LARGER_IS_BETTER[tune.metric] else 1.0
    return min(complete, key=lambda trial: (sign * (trial.score or 0.0), trial.number), default=None)


def importances(space: Space, tune: TuneConfig, trials: Sequence[Trial]) -> dict[str, float]:
    """How much of the scores' variance each key explains (fANOVA: Hutter, Hoos & Leyton-Brown 2014).

    Of keys that every complete trial had; empty where there are too few trials, or nothing varies.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    shared = [path for path in space.searched if all(path in trial.parameters for trial in complete)]
    if len(complete) < 4 or not shared or len({trial.score for trial in complete}) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=tune.seed)
    found = optuna.importance.get_param_importances(study_of(space, tune, complete), evaluator=evaluator, params=shared)
    return {str(path): float(share) for path, share in found.items()}


class Trier:
    """Tries choices on the folds of a search, one after another."""

    def __init__(self, space: Space, tune: TuneConfig, bars: Bars, folds: Sequence[Spans]) -> None:
        self._space = space
        self._tune = tune
        self._folds = folds
        self._scorer = Scorer(bars, tune.metric)

    def run(self, job: Job) -> tuple[Trial, float]:
        """Try a choice; the trial, and the seconds that it took."""
        start = time.perf_counter()
        scores: list[float] = []
        state: State = "complete"
        reason = ""
        try:
            config = self._space.applied(job.parameters)
            for number, spans in enumerate(self._folds, start=1):
                scores.append(self._scorer.score(in_fold(config, spans)))
                if number < len(self._folds) and self._tune.prune and self._behind(scores, job):
                    state = "pruned"
                    break
        except NextbarError as error:
            state, reason = "failed", str(error)
        trial = Trial(number=job.number, state=state, parameters=job.parameters, scores=tuple(scores), reason=reason)
        return trial, time.perf_counter() - start

    def _behind(self, scores: Sequence[float], job: Job) -> bool:
        """Whether the mean so far is worse than the median of the complete trials' after as many folds."""
        study = optuna.create_study(
            direction=_direction(self._tune), pruner=optuna.pruners.MedianPruner(n_startup_trials=_TRIED_BEFORE_PRUNING)
        )
        for means in job.rivals:
            study.add_trial(optuna.trial.create_trial(value=means[-1], intermediate_values=dict(enumerate(means))))
        own = study.ask()
        own.report(sum(scores) / len(scores), step=len(scores) - 1)
        return own.should_prune()


def _direction(tune: TuneConfig) -> Literal["minimize", "maximize"]:
    return "maximize" if LARGER_IS_BETTER[tune.metric] else "minimize"

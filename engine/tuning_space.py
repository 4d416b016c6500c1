"""The space of a search: which keys of the run file take which values, and the run file that a choice of them makes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from engine.config import RunConfig
from engine.errors import ConfigError
from engine.model_sections import MODEL_KINDS, BundleReference, EnsembleConfig
from engine.run_file import explained
from engine.tune_section import RangeConfig, TuneConfig

if TYPE_CHECKING:
    import optuna

Value = Any
Parameters = Mapping[str, Value]
Distributions = Mapping[str, "optuna.distributions.BaseDistribution"]

# What may be searched, and what only a strategy's figures depend on.
_FORECAST, _TRADING = ("model", "training"), ("strategy", "risk")
# What makes errors larger or smaller by itself.
_SCALES = ("model.horizon", "model.target")
_OF_GRADIENTS = tuple(f"training.{key}" for key in ("epochs", "patience", "batch", "learning_rate"))
_FOREIGN = {
    "training.seed": "the best of several seeds is luck; search something else, and train with several seeds after it",
    "training.walk_forward": "the search trains on folds of its own",
    "model.bundle": "a trained bundle cannot be trained",
}


@dataclass(frozen=True)
class Space:
    """Keys and their values, in the order in which they are chosen: the kind of model before what depends on it.

    Attributes:
        config: the run file that is searched from.
        searched: key -> its values.
    """

    config: RunConfig
    searched: Mapping[str, RangeConfig | tuple[Value, ...]]

    @classmethod
    def of(cls, config: RunConfig, tune: TuneConfig) -> Space:
        """The run file's space, checked value by value.

        Raises:
            ConfigError: a key that is none, or not to be searched, or a value that it cannot have; names it.
        """
        space = cls(config, {path: tune.space[path] for path in sorted(tune.space, key=_order)})
        for path in space.searched:
            _check_path(path, config, tune)
        for path in space.searched:
            for value in space.corners(path):
                space.with_one(path, value)
        return space

    def corners(self, path: str) -> tuple[Value, ...]:
        """All choices of a key, or both ends of its range."""
        values = self.searched[path]
        return (values.low, values.high) if isinstance(values, RangeConfig) else values

    def with_one(self, path: str, value: Value) -> RunConfig | None:
        """The run file with one key changed, for a kind of model that has it; None where it fits beside others alone.

        Raises:
            ConfigError: the key cannot have this value, whatever the others are.
        """
        first: ConfigError | None = None
        for beside in self._kinds_beside(path):
            values = _values_of(self.config)
            for key, other in {**beside, path: value}.items():
                _set(values, key, other)
            try:
                return _validated(values, self.config)
            except ValidationError as error:
                if all(_concerns_several(problem, path) for problem in error.errors(include_url=False)):
                    return None
                first = first or ConfigError(f"tune.space.{path}: {value!r} cannot be: {explained(error, values)}")
        raise first or ConfigError(
            f"tune.space.{path}: unknown to every kind of model that is tried; correct it, or add a kind that has it"
        )

    def suggest(self, trial: optuna.Trial) -> dict[str, Value]:
        """A choice of each key that the chosen kind of model has, by the trial's sampler."""
        chosen: dict[str, Value] = {}
        for path, values in self.searched.items():
            if self._asks(path, chosen):
                chosen[path] = _drawn(trial, path, values)
        return chosen

    def holds(self, parameters: Parameters) -> bool:
        """Whether ``suggest`` may have given this: each key that it draws, and no other, with one of its values."""
        distributions = self.distributions()
        chosen: dict[str, Value] = {}
        for path, values in self.searched.items():
            if self._asks(path, chosen) != (path in parameters):
                return False
            if path in parameters:
                if not _drawable(parameters[path], values, distributions[path]):
                    return False
                chosen[path] = parameters[path]
        return chosen.keys() == parameters.keys()

    def distributions(self) -> Distributions:
        """Of each key what optuna draws from; of a list the JSON text of its values."""
        import optuna.distributions as of

        found: dict[str, of.BaseDistribution] = {}
        for path, values in self.searched.items():
            if not isinstance(values, RangeConfig):
                found[path] = of.CategoricalDistribution(_texts(values))
            elif values.whole:
                step = 1 if values.step is None else int(values.step)
                found[path] = of.IntDistribution(int(values.low), int(values.high), log=values.log, step=step)
            else:
                found[path] = of.FloatDistribution(
                    float(values.low), float(values.high), log=values.log, step=values.step
                )
        return found

    def encoded(self, parameters: Parameters) -> dict[str, Value]:
        """What optuna knows a choice as."""
        return {
            path: value if isinstance(self.searched[path], RangeConfig) else json.dumps(value, sort_keys=True)
            for path, value in parameters.items()
        }

    def applied(self, parameters: Parameters) -> RunConfig:
        """The run file that a choice makes, without its ``tune`` section.

        Raises:
            ConfigError: the values do not go together.
        """
        values = _values_of(self.config)
        for path in self.searched:
            if path in parameters:
                _set(values, path, parameters[path])
        try:
            return _validated(values, self.config)
        except ValidationError as error:
            raise ConfigError(explained(error, values)) from None

    def _asks(self, path: str, chosen: Parameters) -> bool:
        """Whether a key is drawn after what is chosen already."""
        return self._learns_by_gradients(chosen) if path in _OF_GRADIENTS else self._applies(path, chosen)

    def _applies(self, path: str, chosen: Parameters) -> bool:
        """Whether a key of the model is one of the chosen kind's."""
        section, _, key = path.partition(".")
        if section != "model" or not key or key == "kind":
            return True
        kind = chosen.get("model.kind") or chosen.get("model", {}).get("kind") or getattr(self.config.model, "kind", "")
        return key in MODEL_KINDS[kind].model_fields

    def _learns_by_gradients(self, chosen: Parameters) -> bool:
        """Whether the chosen model has epochs, batches and a learning rate."""
        from models.fitting import by_gradients

        try:
            model = self.applied(chosen).model
        except ConfigError:  # the trial will say so
            return True
        members = model.members if isinstance(model, EnsembleConfig) else (model,)
        return any(
            not isinstance(each, BundleReference) and each is not None and by_gradients(each) for each in members
        )

    def _kinds_beside(self, path: str) -> Iterator[dict[str, Value]]:
        """Choices of the kind of model under which a key may be one: as the run file is, and those that are tried."""
        if not path.startswith("model.") or path == "model.kind":
            yield {}
            return
        for other in ("model", "model.kind"):
            for value in self.searched.get(other, ()):
                if self._applies(path, {other: value}):
                    yield {other: value}
        searched = self.searched.keys() & {"model", "model.kind"}
        if not searched:
            yield {}


def _drawn(trial: optuna.Trial, path: str, values: RangeConfig | tuple[Value, ...]) -> Value:
    if not isinstance(values, RangeConfig):
        return json.loads(trial.suggest_categorical(path, _texts(values)))
    if values.whole:
        step = 1 if values.step is None else int(values.step)
        return trial.suggest_int(path, int(values.low), int(values.high), log=values.log, step=step)
    return trial.suggest_float(path, float(values.low), float(values.high), log=values.log, step=values.step)


def _drawable(
    value: Value, values: RangeConfig | tuple[Value, ...], distribution: optuna.distributions.BaseDistribution
) -> bool:
    if not isinstance(values, RangeConfig):
        return json.dumps(value, sort_keys=True) in _texts(values)
    if type(value) is not (int if values.whole else float):
        return False
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, OverflowError):
        return False


def _texts(values: tuple[Value, ...]) -> list[str]:
    return [json.dumps(value, sort_keys=True) for value in values]


def _order(path: str) -> tuple[int, str]:
    return (0 if path == "model" else 1 if path == "model.kind" else 2, path)


def _check_path(path: str, config: RunConfig, tune: TuneConfig) -> None:
    where = f"tune.space.{path}"
    section = path.partition(".")[0]
    if section not in (*_FORECAST, *_TRADING):
        raise ConfigError(
            f"{where}: expected a key of model, training, strategy or risk, as model.hidden; found {path}"
        )
    if path in _FOREIGN:
        raise ConfigError(f"{where}: not to be searched: {_FOREIGN[path]}")
    if section in _TRADING and tune.metric != "sharpe":
        raise ConfigError(
            f"{where}: it changes nothing about {tune.metric}, which judges forecasts; use metric: sharpe, or remove it"
        )
    if path in _SCALES and tune.metric in ("mae", "pinball"):
        raise ConfigError(
            f"{where}: errors of another {path.removeprefix('model.')} are larger or smaller by themselves; judge by "
            "r2_out_of_sample, rank_ic or sharpe"
        )
    if section in _FORECAST and (config.model is None or isinstance(config.model, BundleReference)):
        raise ConfigError(f"{where}: the run file describes no model that could be trained; add a model section")
    if path in ("training", "strategy", "risk"):
        raise ConfigError(f"{where}: expected a key of the section, as {path}.{_EXAMPLES[path]}")


_EXAMPLES = {"training": "learning_rate", "strategy": "params.k", "risk": "max_position"}


def _concerns_several(problem: Any, path: str) -> bool:
    """Whether values do not go together, each of which may go with others."""
    return problem["type"] == "value_error" and path.rpartition(".")[2] not in problem["loc"]


def _values_of(config: RunConfig) -> dict[str, Any]:
    """What the run file says, and no default: another kind of model has others."""
    values = config.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    values.pop("tune", None)
    return values


def _set(values: dict[str, Any], path: str, value: Value) -> None:
    if path == "model":
        values["model"] = value
        return
    if path == "model.kind" and isinstance(value, str) and value in MODEL_KINDS:
        values["model"] = {**_taken(values["model"], value), "kind": value}
        return
    node = values
    *sections, key = path.split(".")
    for section in sections:
        inner = node.get(section)
        node[section] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        node = inner
    node[key] = value


def _taken(model: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What is said of a model and holds for another kind too."""
    fields = MODEL_KINDS[kind].model_fields
    kept = {}
    for key, value in model.items():
        if key in fields and key != "kind":
            try:
                TypeAdapter(fields[key].rebuild_annotation()).validate_python(value)
            except ValidationError:
                continue
            kept[key] = value
    return kept


def _validated(values: Mapping[str, Any], config: RunConfig) -> RunConfig:
    return RunConfig.model_validate({**values, "folder": config.folder})

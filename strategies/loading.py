"""From the run file's ``strategy`` section to a backtrader strategy class and its arguments."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import backtrader as bt

from engine.config import RunConfig, StrategyConfig
from engine.errors import ConfigError, NextbarError, StrategyError
from strategies.rule import Context, Rule, checked_params, needed_forecaster
from strategies.runner import RuleStrategy


@dataclass(frozen=True, kw_only=True)
class LoadedStrategy:
    """A strategy ready to be added to Cerebro: ``cerebro.addstrategy(cls, **arguments)``.

    ``source_hash`` is the SHA-256 of the file that the run file names.
    """

    name: str
    cls: type[bt.Strategy]
    arguments: dict[str, Any]
    source_hash: str


def load_strategy(config: RunConfig, context: Context) -> LoadedStrategy:
    """Find the strategy of a run file and check its parameters.

    Raises:
        ConfigError: no such module, file or class, or parameters that it does not know or whose type is wrong.
        StrategyError: its file raised while it was imported, or the rule while it was built.
    """
    section = config.strategy
    found, source_hash = _found(config)
    arguments = (
        {"rule": _rule(found, section, context)} if issubclass(found, Rule) else _arguments(found, section, context)
    )
    return LoadedStrategy(
        name=section.kind.rsplit(":", 1)[1],
        cls=RuleStrategy if issubclass(found, Rule) else found,
        arguments=arguments,
        source_hash=source_hash,
    )


def check_strategy(config: RunConfig, context: Context) -> str:
    """Check the strategy of a run file and its parameters before there is a forecaster; the hash of its source.

    Raises as ``load_strategy``, but for what only shows when the strategy is built.
    """
    section = config.strategy
    found, source_hash = _found(config)
    if issubclass(found, Rule):
        _check_complete(found)
        found.parameters(checked_params(section.params, found.Params._fields, found.__name__), context)
    else:
        _checked(found, section)
    return source_hash


def _found(config: RunConfig) -> tuple[type[Any], str]:
    """The class that the run file names, and the hash of its file."""
    place, name = config.strategy.kind.rsplit(":", 1)
    module = _module(place, config)
    found = getattr(module, name, None)
    if not (inspect.isclass(found) and issubclass(found, Rule | bt.Strategy)):
        raise ConfigError(
            f"strategy.kind: {place} has no strategy named {name}; expected a Rule or a bt.Strategy class"
        )
    return found, hashlib.sha256(Path(str(module.__file__)).read_bytes()).hexdigest()


def _check_complete(cls: type[Rule]) -> None:
    lacking = sorted(name for name in ("Params", "signals") if not hasattr(cls, name)) + sorted(cls.__abstractmethods__)
    if lacking:
        raise ConfigError(f"strategy.kind: {cls.__name__} is not a complete rule: it lacks {', '.join(lacking)}")


def _rule(cls: type[Rule], section: StrategyConfig, context: Context) -> Rule:
    _check_complete(cls)
    try:
        return cls(section.params, context)
    except NextbarError:
        raise
    except Exception as error:
        raise StrategyError(f"{cls.__name__} could not be built: {_short(error)}") from error


def _arguments(cls: type[bt.Strategy], section: StrategyConfig, context: Context) -> dict[str, Any]:
    arguments = dict(_checked(cls, section))
    if "forecaster" in dict(cls.params._getitems()):
        arguments["forecaster"] = needed_forecaster(context)
    return arguments


def _checked(cls: type[bt.Strategy], section: StrategyConfig) -> Mapping[str, Any]:
    """The run file's parameters of a plain strategy, each known to it and of its kind."""
    defaults = dict(cls.params._getitems())
    settable = sorted(defaults.keys() - {"forecaster"})
    for key, value in section.params.items():
        if key not in settable:
            raise ConfigError(
                f"strategy.params.{key}: unknown to {cls.__name__}; expected one of {', '.join(settable) or 'none'}"
            )
        expected = _kind(defaults[key])
        if expected and _kind(value) != expected:
            raise ConfigError(f"strategy.params.{key}: expected {expected}, found {value!r}")
    return section.params


def _kind(value: object) -> str:
    """What a parameter of a plain strategy takes, by its default; empty where that tells nothing."""
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text"}
    return kinds.get(type(value), "")


def _module(place: str, config: RunConfig) -> ModuleType:
    if place.endswith(".py"):
        return _from_file(config.resolve(Path(place)))
    if not all(part.isidentifier() for part in place.split(".")):
        raise ConfigError(f"strategy.kind: expected module:Class or ./file.py:Class, found {config.strategy.kind}")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            raise ConfigError(
                f"strategy.kind: there is no module {place}; a file of your own is named as ./file.py:Class, "
                "relative to the run file"
            ) from None
        raise StrategyError(f"strategy.kind: {place} could not be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise StrategyError(f"strategy.kind: {place} could not be imported: {_short(error)}") from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"strategy.kind: there is no file {path}; it is looked for relative to the run file")
    # Named by its place, so that two files of one name do not meet.
    name = f"nextbar_strategy_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"strategy.kind: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # backtrader's metaclasses look the module of a class up by its name.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except NextbarError:
        raise
    except (Exception, SystemExit) as error:
        raise StrategyError(f"{path}: the strategy could not be imported: {_short(error)}") from error
    return module


def _short(error: BaseException) -> str:
    line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}{line}"

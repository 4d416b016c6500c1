"""From the run file's ``strategy`` section to a backtrader strategy class and its arguments."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import backtrader as bt

from engine.config import RunConfig, StrategyConfig
from engine.errors import ConfigError, NextbarError, StrategyError
from strategies.rule import Context, Rule, needed_forecaster
from strategies.runner import RuleStrategy


@dataclass(frozen=True, kw_only=True)
class LoadedStrategy:
    """A strategy ready to be added to Cerebro: ``cerebro.addstrategy(cls, **arguments)``.

    ``source_hash`` is the SHA-256 of the file that defines it.
    """

    name: str
    cls: type[bt.Strategy]
    arguments: dict[str, Any]
    source_hash: str


def load_strategy(config: RunConfig, context: Context) -> LoadedStrategy:
    """Find the strategy of a run file and check its parameters.

    Raises:
        ConfigError: no such module, file or class, or parameters that it does not know.
        StrategyError: its file raised while it was imported.
    """
    section = config.strategy
    place, name = section.kind.rsplit(":", 1)
    module = _module(place, config)
    found = getattr(module, name, None)
    if not (inspect.isclass(found) and issubclass(found, Rule | bt.Strategy)):
        raise ConfigError(
            f"strategy.kind: {place} has no strategy named {name}; expected a Rule or a bt.Strategy class"
        )
    source = Path(str(module.__file__)).read_bytes()
    arguments = (
        {"rule": found(section.params, context)} if issubclass(found, Rule) else _arguments(found, section, context)
    )
    return LoadedStrategy(
        name=name,
        cls=RuleStrategy if issubclass(found, Rule) else found,
        arguments=arguments,
        source_hash=hashlib.sha256(source).hexdigest(),
    )


def _arguments(cls: type[bt.Strategy], section: StrategyConfig, context: Context) -> dict[str, Any]:
    known = set(cls.params._getkeys())
    for key in section.params:
        if key not in known or key == "forecaster":
            raise ConfigError(
                f"strategy.params.{key}: unknown to {cls.__name__}; "
                f"expected one of {', '.join(sorted(known - {'forecaster'})) or 'none'}"
            )
    arguments: dict[str, Any] = dict(section.params)
    if "forecaster" in known:
        arguments["forecaster"] = needed_forecaster(context)
    return arguments


def _module(place: str, config: RunConfig) -> ModuleType:
    if place.endswith(".py"):
        return _from_file(config.resolve(Path(place)))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is not None and (place == error.name or place.startswith(f"{error.name}.")):
            raise ConfigError(
                f"strategy.kind: there is no module {place}; a file of your own is named as ./file.py:Class, "
                "relative to the run file"
            ) from None
        raise StrategyError(f"strategy.kind: {place} could not be imported: {error}") from error
    except Exception as error:
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
    except Exception as error:
        raise StrategyError(f"{path}: the strategy could not be imported: {_short(error)}") from error
    return module


def _short(error: BaseException) -> str:
    line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}{line}"

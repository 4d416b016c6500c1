"""The rule: signals in, target weights out, nothing else.

A rule is a pure function on float arrays, so that it can be replayed, compiled, and run over thousands of parameter
sets. Who needs more than that writes a plain ``bt.Strategy``; everything but sweeps still works.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from engine.config import RunConfig
from engine.errors import ConfigError
from engine.trading.costs import Costs

if TYPE_CHECKING:
    from models.forecaster import Forecaster

Floats = NDArray[np.float64]
Targets = Callable[[Floats, Floats, Floats, Any], Floats]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a strategy may know of its run: costs, limits and permissions of the account, and the forecaster if any."""

    costs: Costs
    account: str = "margin"
    max_gross: float = 1.0
    fractional: bool = False
    short: bool = False
    forecaster: Forecaster | None = None

    @classmethod
    def of(cls, config: RunConfig, forecaster: Forecaster | None) -> Context:
        """The context that a run file describes."""
        broker = config.broker
        return cls(
            costs=Costs.of(broker),
            account=broker.account,
            max_gross=config.risk.max_gross,
            fractional=broker.fractional,
            short=broker.short,
            forecaster=forecaster,
        )


class Rule(ABC):
    """A trading rule: subclass it with ``Params``, ``signals``, ``lines`` and ``targets``.

    Attributes:
        Params: a NamedTuple of floats with defaults; its fields are what ``strategy.params`` may say.
        signals: names of the signals, in the order of the columns that ``targets`` sees.
    """

    Params: ClassVar[type[Any]]
    signals: ClassVar[tuple[str, ...]]

    def __init__(self, values: Mapping[str, Any], context: Context) -> None:
        self.context = context
        self.params = self.parameters(checked_params(values, self.Params._fields, type(self).__name__), context)

    @classmethod
    def parameters(cls, values: Mapping[str, float], context: Context) -> Any:
        """The parameters of ``targets``; override to add what follows from the context."""
        return cls.Params(**values)

    @abstractmethod
    def lines(self, data: Any) -> Sequence[Any]:
        """One symbol's backtrader lines or indicators, in the order of ``signals``.

        Args:
            data: its feed. Where the run file has ``slower: [1d]``, ``data.slower["1d"]`` is that of its days, for
                lines of their own; each keeps its value until the next day is known.
        """

    @staticmethod
    @abstractmethod
    def targets(signals: Floats, weights: Floats, bars_held: Floats, params: Any) -> Floats:
        """Target weights of all symbols at one bar.

        Args:
            signals: [symbols, signals], the values at each symbol's last bar; NaN where it has no value yet. The answer
                counts for the symbols that have a bar now.
            weights: [symbols], the last targets that were ordered, as fractions of equity; not the drifted weights.
            bars_held: [symbols], the symbol's bars since its target left zero; 0 while it is flat.
            params: an instance of ``Params``.

        Returns:
            [symbols]; negative is short, NaN leaves the target as it is.
        """


def checked_params(values: Mapping[str, Any], known: Sequence[str], name: str) -> dict[str, float]:
    """The run file's ``strategy.params`` as floats; a ConfigError for unknown names and what is no finite number."""
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"strategy.params.{key}: unknown to {name}; expected one of {', '.join(known) or 'none'}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
            raise ConfigError(f"strategy.params.{key}: expected a finite number, found {value!r}")
    return {key: float(value) for key, value in values.items()}


def needed_forecaster(context: Context) -> Forecaster:
    """The run's forecaster, for a strategy that cannot do without one."""
    if context.forecaster is None:
        raise ConfigError("strategy.kind: this strategy trades a forecast, and the run file has no model; add one")
    return context.forecaster


def each_symbol(rule: Callable[[Floats, float, float, Any], float]) -> Targets:
    """Lift a rule written for one symbol, ``rule(signals[k], weight, bars_held, params) -> weight``, to all symbols.

    In a Rule's class body: ``targets = staticmethod(each_symbol(rule))``.
    """

    def targets(signals: Floats, weights: Floats, bars_held: Floats, params: Any) -> Floats:
        result = np.empty(len(weights))
        for i in range(len(weights)):
            result[i] = rule(signals[i], weights[i], bars_held[i], params)
        return result

    return targets

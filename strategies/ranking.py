"""What the rules that rank symbols have in common: hold the best, sell the worst short, in equal parts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from engine.errors import ConfigError
from strategies.rule import Context, Floats, Rule


class RankingParams(NamedTuple):
    """Parameters of a rule that ranks.

    Attributes:
        k: symbols that are held, and as many that are sold short.
        gross: sum of absolute weights when all of them are there.
        min_change: smallest change of a target that is worth an order.
        short: 1 when the worst may be sold short, else the best alone are held; follows from the broker section.
    """

    k: float = 10.0
    gross: float = 1.0
    min_change: float = 0.0
    short: float = 0.0


class Ranking(Rule):
    """Ranks the symbols that have a bar now by their score: the best k long and the worst k short, the rest in cash.

    It decides anew at every bar, and who stays among them is not traded. A place is ``gross / 2 k`` of the equity, or
    ``gross / k`` where nothing is sold short. Of fewer symbols than 2 k the better half is held and the worse sold.
    """

    Params: ClassVar[type[Any]] = RankingParams
    signals = ("score", "time")
    whole: ClassVar[tuple[str, ...]] = ("k",)

    @classmethod
    def parameters(cls, values: Mapping[str, float], context: Context) -> Any:
        """Whole numbers from 1 on; permission to sell short comes from the account, unless the run file says no."""
        params = cls.Params(**{"short": float(context.short), **values})
        for name in cls.whole:
            value = getattr(params, name)
            if not (value.is_integer() and value >= 1.0):
                raise ConfigError(f"strategy.params.{name}: expected a whole number from 1 on, found {value:g}")
        if not params.gross > 0.0:
            raise ConfigError(f"strategy.params.gross: expected a number above 0, found {params.gross:g}")
        return params

    def lines(self, data: Any) -> Sequence[Any]:
        """The score, and the bar's time: who has no bar now is not ranked."""
        return self.score(data), data.datetime

    @abstractmethod
    def score(self, data: Any) -> Any:
        """One symbol's line that it is ranked by, the higher the better."""

    @staticmethod
    def targets(signals: Floats, weights: Floats, bars_held: Floats, params: Any) -> Floats:
        """Equal weights of the best and the worst; equal scores are never told apart. See ``Rule.targets``.

        Who ties with a symbol beyond the cut gets 0, as do all where all scores are equal. Who is not ranked gets 0,
        which counts from its next bar on.
        """
        result = np.zeros(len(weights))
        now = np.nanmax(np.append(signals[:, 1], -np.inf))  # who has had no bar yet has no time
        known = np.nonzero((signals[:, 1] == now) & ~np.isnan(signals[:, 0]))[0]
        order = known[np.argsort(signals[known, 0], kind="mergesort")]
        scores = signals[order, 0]
        k, count = int(params.k), len(order)
        if count > 1 and scores[0] == scores[count - 1]:
            return result
        longs, shorts, place = min(k, count), 0, params.gross / k
        if params.short > 0.0:
            longs, shorts, place = min(k, count - count // 2), min(k, count // 2), params.gross / (2.0 * k)
        for at in range(count - longs, count):
            if longs == count or scores[at] > scores[count - longs - 1]:
                result[order[at]] = place
        for at in range(shorts):
            if scores[at] < scores[shorts]:
                result[order[at]] = -place
        return result

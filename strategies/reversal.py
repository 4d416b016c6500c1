"""Short-term reversal: hold what has lost most, sell what has gained most. It needs no model: what one has to beat."""

from __future__ import annotations

from typing import Any, NamedTuple

import backtrader as bt

from strategies.ranking import Ranking


class ReversalParams(NamedTuple):
    """Parameters of every rule that ranks (see ``RankingParams``), and the bars over which a symbol has lost or won."""

    k: float = 10.0
    gross: float = 1.0
    bars: float = 1.0
    min_change: float = 0.0
    short: float = 0.0


class Reversal(Ranking):
    """Ranks by minus the return over the last ``bars`` bars (Lehmann 1990, Jegadeesh 1990)."""

    Params = ReversalParams
    whole = ("k", "bars")

    def score(self, data: Any) -> Any:
        """Minus the symbol's last return."""
        return -bt.ind.PercentChange(data.close, period=int(self.params.bars))

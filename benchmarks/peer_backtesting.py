"""The bar loop of backtesting.py, run as a program of its own in the peers' environment (.venv-bench).

It takes the path of an .npz file with times (int64 ns), open, high, low, close and volume, and the SMA period. It
answers each line on stdin with a line of JSON: processor seconds of building and running the backtest, how many of
them were spent on statistics, and the number of fills.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import backtesting
import numpy as np
import pandas as pd
from backtesting import backtesting as internals

SIZE = 100


def simple_average(values: np.ndarray, period: int) -> np.ndarray:
    """Mean of the last ``period`` values; NaN before there are as many."""
    return pd.Series(values).rolling(period).mean().to_numpy()


class SmaRule(backtesting.Strategy):
    """Long while the close is above its average, else flat; the same rule as in bar_loop.py."""

    period = 60

    def init(self) -> None:
        self.average = self.I(simple_average, self.data.Close, self.period)

    def next(self) -> None:
        close, average = self.data.Close[-1], self.average[-1]
        if self.position:
            if close < average:
                self.position.close()
        elif close > average:
            self.buy(size=SIZE)


class TimedStatistics:
    """Stands in for the statistics at the end of a run, which are not the bar loop's work, and times them."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, **arguments: Any) -> Any:
        start = time.thread_time()
        statistics = self.function(**arguments)
        self.seconds = time.thread_time() - start
        return statistics


def main(path: str, period: int) -> None:
    """Answer until stdin ends."""
    # An open trade at the end is as it should be.
    warnings.filterwarnings("ignore", message="Some trades remain open")
    arrays = np.load(path)
    frame = pd.DataFrame(
        {name.capitalize(): arrays[name] for name in ("open", "high", "low", "close", "volume")},
        index=pd.DatetimeIndex(arrays["times"].view("datetime64[ns]")),
    )
    statistics = internals.compute_stats = TimedStatistics(internals.compute_stats)
    for _ in sys.stdin:
        start = time.thread_time()
        results = backtesting.Backtest(frame, SmaRule, cash=100_000).run(period=period)
        seconds = time.thread_time() - start
        strategy = results["_strategy"]
        answer = {
            "version": backtesting.__version__,
            "seconds": seconds,
            "statistics_seconds": statistics.seconds,
            "fills": 2 * len(strategy.closed_trades) + len(strategy.trades),
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

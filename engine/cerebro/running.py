"""Run an engine to its end, and say in one sentence what a strategy did wrong and at which bar."""

from __future__ import annotations

from typing import Any

import pandas as pd

from engine.cerebro.clock import to_nanoseconds
from engine.cerebro.loop import Engine
from engine.errors import NextbarError, StrategyError


def run_engine(engine: Engine, name: str) -> Any:
    """Run the engine's strategy, called ``name`` in errors; the strategy as the run leaves it.

    Raises:
        StrategyError: the strategy raised, ended the process, or stopped the run; names the bar.
        NextbarError: as it comes from elsewhere.
    """
    try:
        (strategy,) = engine.run()
    except SystemExit as error:
        raise StrategyError(f"{name} ended the process at {bar_of(engine)}; a strategy may not") from error
    except NextbarError as error:
        if isinstance(error, StrategyError):
            raise type(error)(f"{name} at {bar_of(engine)}: {error}") from error
        raise
    except Exception as error:
        raise StrategyError(f"{name} raised {type(error).__name__} at {bar_of(engine)}: {error}") from error
    if engine.stopped:
        raise StrategyError(f"{name} stopped the run at {bar_of(engine)}; end the span there instead")
    return strategy


def bar_of(engine: Engine) -> str:
    """The bar that the engine works on, in words."""
    if not engine.time:
        return "the start, before the first bar"
    return f"bar {engine.steps} ({pd.Timestamp(to_nanoseconds(engine.time), tz='UTC'):%Y-%m-%d %H:%M} UTC)"

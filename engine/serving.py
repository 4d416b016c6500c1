"""The use case behind ``nextbar exchange``: replay a run file's bars to anybody who speaks Alpaca's protocol."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.data.cuts import with_history
from engine.data.sources import load_bars
from engine.exchange.account import PRACTICE, AccountSpec
from engine.exchange.faults import Faults
from engine.exchange.server import ExchangeServer
from engine.preparation import base_bars

__all__ = ["PRACTICE", "bars_to_replay", "serve"]


def serve(
    config: RunConfig,
    *,
    port: int,
    speed: float | None,
    state: Path | None,
    keys: tuple[str, str],
    faults: Faults | None = None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve the bars of the run file's test span until SIGINT or SIGTERM, to one account on its broker's terms.

    Args:
        port: 0 for any free one.
        speed: None for lock-step; else simulated seconds a second, ``math.inf`` for as fast as possible.
        state: file from which an interrupted exchange goes on.
        keys: key and secret of the account.
        faults: what the exchange is to do wrong.
        on_ready: called with the exchange's URL as soon as it can be reached.

    Raises:
        ConfigError: the run file cannot be used, a speed that is no positive number, or faults beyond the last step.
        DataError: bars are missing, malformed, or do not follow New York's sessions.
        BrokerError: the port is taken.
        StorageError: the state is damaged, in use, or another exchange's.
    """
    bars, start = bars_to_replay(config)
    account = AccountSpec(key=keys[0], secret=keys[1], broker=config.broker)
    server = ExchangeServer(
        bars=bars,
        start=start,
        accounts=[account],
        port=port,
        speed=speed,
        state=state,
        faults=faults,
        base=base_bars(config),
    )
    server.run(on_ready)


def bars_to_replay(config: RunConfig, *, root: Path = Path()) -> tuple[Bars, pd.Timestamp]:
    """All bars up to the end of the test span, and the end of the first decision bar, as the backtest has it."""
    bars = load_bars(config.data, config.folder, root=root, within=config.spans.extent).among(*config.spans.test)
    used, start, _ = with_history(bars, config.spans.test, warmup=config.data.warmup_bars)
    frames = {symbol: bars.frames[symbol].loc[: used.frames[symbol].index[-1]] for symbol in used.frames}
    return replace(bars, frames=frames), start

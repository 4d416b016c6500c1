"""What trading recorded, as the frames of a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from engine.data.bars import Bars
from engine.report import frames
from engine.trading.orders import SIDE_NAMES, Fill, Order
from engine.trading.trades import Trade


def orders_frame(orders: Sequence[Order]) -> pd.DataFrame:
    """One row an order, in the sequence of submission; orders still waiting at the end are ``open``."""
    rows = [
        {
            "order_id": order.id,
            "time": pd.Timestamp(order.decided, tz="UTC"),
            "symbol": order.symbol,
            "side": SIDE_NAMES[order.side],
            "quantity": order.quantity,
            "type": order.type,
            "limit_price": order.limit_price,
            "stop_price": order.stop_price,
            "time_in_force": order.time_in_force,
            "status": "open" if order.alive else order.status.value,
            "filled_quantity": order.filled_quantity,
            "reason": order.reason,
        }
        for order in orders
    ]
    return _typed(rows, frames.ORDERS)


def fills_frame(fills: Sequence[Fill]) -> pd.DataFrame:
    """One row a fill, in order."""
    rows = [
        {
            "order_id": fill.order_id,
            "decision_time": pd.Timestamp(fill.decided, tz="UTC"),
            "time": pd.Timestamp(fill.time, tz="UTC"),
            "symbol": fill.symbol,
            "side": SIDE_NAMES[fill.side],
            "quantity": fill.quantity,
            "price": fill.price,
            "commission": fill.commission,
            "slippage": fill.slippage,
        }
        for fill in fills
    ]
    return _typed(rows, frames.FILLS)


def trades_frame(trades: Sequence[Trade], bars: Bars) -> pd.DataFrame:
    """One row a round trip; ``bars`` counts the symbol's bars from entry to exit."""
    rows = []
    for trade in trades:
        times = pd.DatetimeIndex(bars.frames[trade.symbol].index)
        entry, end = (pd.Timestamp(t, tz="UTC") for t in (trade.entry_time, trade.exit_time))
        rows.append(
            {
                **asdict(trade),
                "entry_time": entry,
                "exit_time": pd.NaT if trade.open else end,
                "bars": int(times.searchsorted(end, side="right") - times.searchsorted(entry, side="right")),
            }
        )
    return _typed(rows, frames.TRADES)


def bars_frame(bars: Bars, start: pd.Timestamp) -> pd.DataFrame:
    """The bars from ``start`` on, one row a bar and symbol."""
    parts = [frame.loc[start:].assign(symbol=symbol).reset_index() for symbol, frame in bars.frames.items()]
    return pd.concat(parts, ignore_index=True)


def _typed(rows: list[dict[str, Any]], columns: Mapping[str, frames.Kind]) -> pd.DataFrame:
    return frames.typed(pd.DataFrame(rows, columns=list(columns)), columns, name="records")

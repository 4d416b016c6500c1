"""Two fingerprints of what was traded: the orders as decided, and the fills as they happened.

They are the same for backtest, replay and paper, so that two runs can be compared without opening them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import pandas as pd

QUANTITY_PLACES = 9
ORDER_PRICE_PLACES = 4
FILL_PRICE_PLACES = 9  # slippage and adjusted prices live below the tick, so a fill is compared finer than an order


def orders_hash(orders: pd.DataFrame) -> str:
    """SHA-256 over the submitted orders, in the order of the frame's rows.

    One line an order, UTF-8, ended by a newline, fields joined by commas::

        time,symbol,side,quantity,type,limit_price,stop_price

    ``time`` is the decision bar's end in UTC, ``2011-01-03T21:00:00Z``, with six digits of fraction only where it
    has one. ``quantity`` has 9 places, prices 4, and a price the order does not have is empty. Status, reason and
    filled quantity do not enter: the hash is of decisions. No orders at all hash as the empty text.
    """
    return _digest(
        (
            _time(row.time),
            str(row.symbol),
            str(row.side),
            _number(row.quantity, QUANTITY_PLACES),
            str(row.type),
            _number(row.limit_price, ORDER_PRICE_PLACES),
            _number(row.stop_price, ORDER_PRICE_PLACES),
        )
        for row in _rows(orders)
    )


def fills_hash(fills: pd.DataFrame) -> str:
    """SHA-256 over the fills, in the order of the frame's rows.

    One line a fill, as in :func:`orders_hash`::

        time,symbol,side,quantity,price,commission

    ``time`` is the filling bar's end; quantity, price and commission have 9 places.
    """
    return _digest(
        (
            _time(row.time),
            str(row.symbol),
            str(row.side),
            _number(row.quantity, QUANTITY_PLACES),
            _number(row.price, FILL_PRICE_PLACES),
            _number(row.commission, FILL_PRICE_PLACES),
        )
        for row in _rows(fills)
    )


def _rows(frame: pd.DataFrame) -> Iterable[Any]:
    return frame.itertuples(index=False)


def _digest(lines: Iterable[tuple[str, ...]]) -> str:
    sha = hashlib.sha256()
    for fields in lines:
        sha.update((",".join(fields) + "\n").encode())
    return sha.hexdigest()


def _time(value: pd.Timestamp) -> str:
    moment = value.tz_convert("UTC")
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if moment.microsecond else "%Y-%m-%dT%H:%M:%SZ")


def _number(value: Any, places: int) -> str:
    if value is None or pd.isna(value):
        return ""
    text = f"{float(value):.{places}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text  # minus zero is zero

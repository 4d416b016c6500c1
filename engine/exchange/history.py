"""Bars over REST, as far as the clock has come: nothing that ends after the exchange's now is ever answered."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.exchange.exchange import Exchange
from engine.exchange.market import Series
from engine.exchange.refusals import invalid
from engine.exchange.wire import moment, nanoseconds

MOST_BARS = 10_000
_USUAL_BARS = 1_000
_LATEST_TIME = 2**62
_MOST_DIGITS = 9


def bars_page(exchange: Exchange, query: Mapping[str, str]) -> dict[str, Any]:
    """One page of bars: symbol by symbol in the alphabet, each in the order asked for.

    ``start`` and ``end`` are compared with the bars' starts, both inclusive, as at Alpaca.
    """
    symbols = sorted(set(asked_symbols(query)))
    series = _series(exchange, query.get("timeframe"))
    first, last = _time(query, "start", 0), _time(query, "end", _LATEST_TIME)
    limit = count(query, "limit", _USUAL_BARS, MOST_BARS)
    descending = query.get("sort", "asc") == "desc"
    if query.get("sort", "asc") not in ("asc", "desc"):
        raise invalid(f"invalid sort: expected asc or desc, found {query['sort']!r}")
    begin_symbol, begin_at = _read_token(query.get("page_token"))
    page: dict[str, list[dict[str, Any]]] = {}
    for symbol in symbols:
        if symbol < begin_symbol or symbol not in series:
            continue
        known = series[symbol].starts[: series[symbol].known(exchange.now)]
        low, high = int(np.searchsorted(known, first)), int(np.searchsorted(known, last, side="right"))
        if symbol == begin_symbol:
            low, high = (low, min(high, begin_at + 1)) if descending else (max(low, begin_at), high)
        positions = range(low, high)[::-1] if descending else range(low, high)
        own = series is exchange.market.series
        chosen = _shown(exchange, symbol, positions) if own else positions
        taken = chosen[: limit - sum(map(len, page.values()))]
        if taken:
            page[symbol] = [_bar(exchange, symbol, at) if own else _fields(series[symbol], at) for at in taken]
        if len(taken) < len(chosen):
            return {"bars": page, "next_page_token": _token(symbol, chosen[len(taken)])}
    return {"bars": page, "next_page_token": None}


def latest_bars(exchange: Exchange, symbols: list[str]) -> dict[str, dict[str, Any]]:
    """The last bar of each symbol that has one."""
    latest = {}
    for symbol in symbols:
        series = exchange.market.series.get(symbol)
        known = series.known(exchange.now) if series else 0
        at = next(iter(_shown(exchange, symbol, range(known)[::-1])), None)
        if at is not None:
            latest[symbol] = _bar(exchange, symbol, at)
    return latest


def _shown(exchange: Exchange, symbol: str, positions: range) -> Sequence[int]:
    """The positions of a symbol's bars without those that a fault hides."""
    flaws = exchange.flaws
    return positions if flaws is None else [at for at in positions if not flaws.hides(symbol, at)]


def asked_symbols(query: Mapping[str, str]) -> list[str]:
    """The symbols of a query; a Refusal when there are none."""
    symbols = [symbol for symbol in query.get("symbols", "").split(",") if symbol]
    if not symbols:
        raise invalid("symbols is required")
    return symbols


def count(query: Mapping[str, str], name: str, usual: int, most: int) -> int:
    """A whole number from 1 to ``most`` in a query, ``usual`` where there is none; a Refusal for anything else."""
    text = query.get(name) or str(usual)
    if len(text) > _MOST_DIGITS or not (text.isascii() and text.isdigit()) or not 1 <= int(text) <= most:
        raise invalid(f"invalid {name}: expected 1 to {most}, found {text[:40]!r}")
    return int(text)


def _bar(exchange: Exchange, symbol: str, at: int) -> dict[str, Any]:
    """A bar as it is shown now, revised or not."""
    revised = None if exchange.flaws is None else exchange.flaws.row(symbol, at)
    return _fields(exchange.market.series[symbol], at, revised)


def _fields(series: Series, at: int, revised: list[float] | None = None) -> dict[str, Any]:
    """A bar by its start. ``n`` and ``vw`` must be there for alpaca-py, and are not in our data: 1 and the close."""
    open_, high, low, close, volume = revised or series.values[at].tolist()
    start = moment(int(series.starts[at]))
    return {"t": start, "o": open_, "h": high, "l": low, "c": close, "v": volume, "n": 1, "vw": close}


def _series(exchange: Exchange, asked: str | None) -> Mapping[str, Series]:
    """The bars of the timeframe that is asked for: those that are traded on, or the shorter ones they are made of."""
    if asked is None:
        raise invalid("timeframe is required")
    found = exchange.market.histories.get(asked.lower())
    if found is None:
        own = exchange.market.alpaca_timeframe
        raise invalid(f"timeframe {asked} is not kept here: this exchange replays bars of {own} only")
    return found


def _time(query: Mapping[str, str], name: str, otherwise: int) -> int:
    text = query.get(name)
    if not text:
        return otherwise
    try:
        time = nanoseconds(text)
    except (ValueError, OverflowError):
        raise invalid(f"invalid {name}: expected RFC 3339 or a date, found {text!r}") from None
    # A date alone as an end means that whole day.
    return time + 86_399_999_999_999 if name == "end" and len(text) == 10 else time


def _token(symbol: str, at: int) -> str:
    """Where the next page begins: at this bar of this symbol."""
    return base64.urlsafe_b64encode(f"{at}|{symbol}".encode()).decode()


def _read_token(token: str | None) -> tuple[str, int]:
    if not token:
        return "", 0
    try:
        at, _, symbol = base64.urlsafe_b64decode(token).decode().partition("|")
        return symbol, max(0, int(at))
    except ValueError:
        raise invalid(f"invalid page_token {token!r}") from None

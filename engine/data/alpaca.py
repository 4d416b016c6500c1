"""Bars from Alpaca's market data: pages of history, and what the live side asks for to warm up and catch up.

alpaca-py is imported inside the functions: no other source pays for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd

from engine.config import Adjustment, Feed
from engine.credentials import Credentials
from engine.data.bars import COLUMNS
from engine.data.timeframes import bar_ends, in_session, is_intraday
from engine.data.validation import validated
from engine.errors import BrokerError, ConfigError

if TYPE_CHECKING:
    from alpaca.common.exceptions import APIError
    from alpaca.common.rest import RESTClient

    Client = TypeVar("Client", bound=RESTClient)

DEFAULT_FEED: Feed = "iex"
DEFAULT_ADJUSTMENT: Adjustment = "all"

# Seconds to connect, and to wait for the next byte of an answer.
TIMEOUTS_SECONDS = (3.0, 10.0)

# Alpaca takes "today" for a start that is not given. Its history is younger than this.
_EARLIEST = pd.Timestamp("1990-01-01", tz="UTC")

# Minutes outside of the regular session on one day, which come with the bars and are left out: 4:00 to 20:00 but 6.5 h.
_OUT_OF_SESSION = 570

_KEYS = ("o", "h", "l", "c", "v")


def fetch_raw(
    credentials: Credentials,
    symbols: Sequence[str],
    timeframe: str,
    *,
    start: pd.Timestamp,
    end: pd.Timestamp | None,
    feed: Feed,
    adjustment: Adjustment,
    now: pd.Timestamp,
    patience: Callable[[Callable[..., Any]], Callable[..., Any]],
) -> dict[str, pd.DataFrame]:
    """Complete bars of the regular session as Alpaca gives them (see ``Raw``), one frame a symbol; it may be empty.

    Args:
        start, end: bars begin between them, both included; no end leaves it to Alpaca.
        now: no later bar is complete.
        patience: makes of a request one that waits where Alpaca lets no more of them through.

    Raises:
        ConfigError: a timeframe that Alpaca has not.
        BrokerError: Alpaca refused, failed or was not reached.
        DataError: a bar of a day on which the exchange did not open.
    """
    with _asking(credentials, timeframe, start=start, feed=feed, adjustment=adjustment) as (client, ask):
        client._session.request = patience(client._session.request)
        client._retry = 0  # the SDK's own waits are of three seconds, whatever the limit says
        rows = ask(symbols) if end is None else ask(symbols, end=_instant(end))
    return {symbol: _raw_frame(symbol, rows.get(symbol, []), timeframe, complete=now) for symbol in symbols}


def exchange_time(credentials: Credentials) -> pd.Timestamp:
    """The present moment by the clock of the exchange on this machine, UTC.

    Raises:
        BrokerError: it could not be asked.
    """
    import requests
    from alpaca.common.exceptions import APIError
    from alpaca.trading.client import TradingClient

    client = with_timeouts(
        TradingClient(credentials.key, credentials.secret, raw_data=True, url_override=credentials.trading_url)
    )
    try:
        answer: Any = client.get_clock()
        return pd.Timestamp(answer["timestamp"]).tz_convert("UTC").as_unit("ns")
    except (APIError, requests.RequestException, KeyError, TypeError, ValueError) as error:
        raise BrokerError(
            f"the exchange at {credentials.trading_url} did not tell the time ({type(error).__name__}); start it with "
            "nextbar exchange CONFIG, or unset APCA_API_BASE_URL to ask Alpaca"
        ) from error
    finally:
        client._session.close()


def fetch_bars(
    credentials: Credentials,
    symbols: Sequence[str],
    timeframe: str,
    *,
    start: pd.Timestamp | None,
    end: pd.Timestamp | None = None,
    limit: int | None = None,
    feed: Feed = DEFAULT_FEED,
    adjustment: Adjustment = DEFAULT_ADJUSTMENT,
    now: pd.Timestamp | None = None,
) -> dict[str, pd.DataFrame]:
    """Canonical frames (see ``Bars``) of complete bars of the regular session, one for each symbol; may be empty.

    Args:
        start: bars begin at or after it; None, with a limit, for as far back as needed.
        end: bars are complete at or before it. None leaves it to Alpaca, which stops 15 minutes ago where the
            account may not see the newest bars of the SIP feed.
        limit: the *last* so many bars of each symbol, of which there may be fewer.
        feed: ``iex`` (one exchange, 3 to 4 % of the volume) or ``sip`` (all exchanges).
        adjustment: ``raw``, ``split``, ``dividend`` or ``all``, as of now.
        now: the present moment, UTC: no later bar is complete. The machine's clock, if None.

    Raises:
        ConfigError: a timeframe that Alpaca has not.
        BrokerError: Alpaca refused, failed or was not reached.
        DataError: bars that cannot be.
    """
    from alpaca.common.enums import Sort

    now = pd.Timestamp.now("UTC") if now is None else now
    complete = now if end is None else min(now, end)

    def frame(symbol: str, rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
        return _frame(symbol, rows, timeframe, complete=complete)

    def last(ask: Callable[..., Any], symbol: str, limit: int) -> pd.DataFrame:
        """Newest bars first, and on into the past until enough of them lie in the session."""
        page_limit = 2 * limit + _OUT_OF_SESSION if is_intraday(timeframe) else limit + 1
        newest = None if end is None else complete
        rows: list[Mapping[str, Any]] = []
        while True:
            more = {} if newest is None else {"end": _instant(newest)}
            page = ask([symbol], limit=page_limit, sort=Sort.DESC, **more).get(symbol, [])
            rows.extend(page)
            bars = frame(symbol, reversed(rows))
            if len(bars) >= limit or len(page) < page_limit:
                return bars.iloc[max(0, len(bars) - limit) :]
            newest = pd.Timestamp(page[-1]["t"]) - pd.Timedelta(microseconds=1)

    with _asking(credentials, timeframe, start=start, feed=feed, adjustment=adjustment) as (_, ask):
        if limit is not None:
            return {symbol: last(ask, symbol, limit) for symbol in symbols}
        rows = ask(symbols) if end is None else ask(symbols, end=_instant(complete))
    return {symbol: frame(symbol, rows.get(symbol, [])) for symbol in symbols}


@contextmanager
def _asking(
    credentials: Credentials, timeframe: str, *, start: pd.Timestamp | None, feed: Feed, adjustment: Adjustment
) -> Iterator[tuple[Any, Callable[..., Mapping[str, list[Mapping[str, Any]]]]]]:
    """A client, and what asks it for bars of some symbols: all pages, by symbol."""
    from alpaca.data.enums import Adjustment as AlpacaAdjustment
    from alpaca.data.enums import DataFeed
    from alpaca.data.historical.stock import StockHistoricalDataClient
    from alpaca.data.requests import StockBarsRequest

    client = with_timeouts(
        StockHistoricalDataClient(credentials.key, credentials.secret, raw_data=True, url_override=credentials.data_url)
    )
    asked = {
        "timeframe": alpaca_timeframe(timeframe),
        "start": _instant(_EARLIEST if start is None else start),
        "feed": DataFeed(feed),
        "adjustment": AlpacaAdjustment(adjustment),
    }

    def ask(symbols: Sequence[str], **more: Any) -> Mapping[str, list[Mapping[str, Any]]]:
        request = StockBarsRequest(symbol_or_symbols=list(symbols), **asked, **more)
        return _answer(client, request, credentials=credentials, feed=feed)

    try:
        yield client, ask
    finally:
        client._session.close()


def with_timeouts(client: Client) -> Client:
    """The same REST client, whose requests end: alpaca-py sets no time-out, and a mute server would hang it for ever.

    On this machine it asks no proxy, whatever the environment says.
    """
    session = client._session
    session.request = functools.partial(session.request, timeout=TIMEOUTS_SECONDS)  # type: ignore[method-assign]
    session.trust_env = _address(client).startswith("https:")
    return client


def _address(client: RESTClient) -> str:
    """Where the client's requests go; the SDK's own addresses are members of an enum."""
    return str(getattr(client._base_url, "value", client._base_url))


def alpaca_timeframe(timeframe: str) -> Any:
    """The SDK's name of a timeframe; a ConfigError where Alpaca has none."""
    from alpaca.data.timeframe import TimeFrame, TimeFrameUnit

    if timeframe == "1mo":
        return TimeFrame(1, TimeFrameUnit.Month)
    amount, unit = int(timeframe[:-1]), timeframe[-1]
    if unit == "m" and amount % 60 == 0:
        amount, unit = amount // 60, "h"
    units = {"m": TimeFrameUnit.Minute, "h": TimeFrameUnit.Hour, "d": TimeFrameUnit.Day, "w": TimeFrameUnit.Week}
    try:
        return TimeFrame(amount, units[unit])
    except ValueError:
        raise ConfigError(
            f"data.timeframe: Alpaca has bars of 1 to 59 minutes, of 1 to 23 hours, of a day, a week and a month, "
            f"found {timeframe}"
        ) from None


def _instant(time: pd.Timestamp) -> Any:
    """As the SDK takes it: its times have microseconds."""
    return time.floor("us").to_pydatetime()


def _frame(symbol: str, rows: Iterable[Mapping[str, Any]], timeframe: str, *, complete: pd.Timestamp) -> pd.DataFrame:
    """Alpaca's rows in the order of time, as a canonical frame."""
    kept = _raw_frame(symbol, rows, timeframe, complete=complete)
    if len(kept) == 1:
        # A history of one bar is refused, but to catch up one may be all that is missing: check it beside its double.
        return validated(pd.concat([kept.shift(freq=pd.Timedelta(-1)), kept]), symbol=symbol, origin="alpaca").iloc[1:]
    return validated(kept, symbol=symbol, origin="alpaca") if len(kept) else kept


def _raw_frame(
    symbol: str, rows: Iterable[Mapping[str, Any]], timeframe: str, *, complete: pd.Timestamp
) -> pd.DataFrame:
    """Alpaca's rows as they are, without what is not complete or out of session."""
    rows = list(rows)
    try:
        starts = pd.DatetimeIndex(pd.to_datetime([row["t"] for row in rows], utc=True, format="ISO8601")).as_unit("ns")
        columns = zip(COLUMNS, _KEYS, strict=True)
        values = {name: np.array([row[key] for row in rows], dtype=np.float64) for name, key in columns}
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BrokerError(
            f"Alpaca's answer for {symbol} holds what is no bar ({problem}); expected t, o, h, "
            "l, c and v in each; try again later"
        ) from error
    ends = bar_ends(starts, timeframe).rename("time")
    return pd.DataFrame(values, index=ends)[in_session(ends, timeframe) & (ends <= complete)]


def _answer(
    client: Any, request: Any, *, credentials: Credentials, feed: Feed
) -> Mapping[str, list[Mapping[str, Any]]]:
    """All pages of the answer, by symbol; every failure as a BrokerError."""
    import requests
    from alpaca.common.exceptions import APIError

    try:
        answer: Mapping[str, list[Mapping[str, Any]]] = client.get_stock_bars(request)
    except APIError as error:
        raise BrokerError(_refusal(error, credentials=credentials, feed=feed)) from error
    except requests.Timeout as error:
        raise BrokerError(
            f"Alpaca's market data at {_address(client)} gave no answer in time; try again later"
        ) from error
    except requests.JSONDecodeError as error:
        raise BrokerError(f"Alpaca's market data at {_address(client)} answered with what is no JSON") from error
    except requests.RequestException as error:
        raise BrokerError(
            f"Alpaca's market data at {_address(client)} could not be reached ({type(error).__name__}); "
            "check the network, and try again"
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BrokerError(
            f"Alpaca's market data at {_address(client)} answered with what are no bars ({type(error).__name__}); "
            "try again later"
        ) from error
    return answer


def _refusal(error: APIError, *, credentials: Credentials, feed: Feed) -> str:
    status = error.status_code
    said = f"{status}: {_said(error)}"
    if status in (401, 403):
        sip = ", or set data.feed: iex, which every account may read" if feed == "sip" else ""
        return (
            f"Alpaca refused the key {credentials.masked} bars of the {feed} feed ({said}); check APCA_API_KEY_ID and "
            f"APCA_API_SECRET_KEY{sip}"
        )
    if status == 429:
        return f"Alpaca was asked for more than it allows in a minute ({said}); wait a minute, and try again"
    if status >= 500:
        return f"Alpaca's market data failed ({said}); try again later"
    return f"Alpaca refused the request for bars ({said}); check data.symbols, data.timeframe and data.start"


def _said(error: APIError) -> str:
    """The server's words, on one line. The SDK's own ``code`` and ``message`` raise where an answer has none."""
    try:
        text = error.response.json()["message"]
    except (KeyError, TypeError, ValueError):
        text = str(error)
    return " ".join(str(text).split())[:200] or "no reason given"

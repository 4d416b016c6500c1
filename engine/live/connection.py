"""The way to Alpaca, or to an exchange on this machine that speaks as Alpaca does: clients, streams, first checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

import requests
from alpaca.common.exceptions import APIError
from alpaca.data.enums import Adjustment, DataFeed
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest
from alpaca.trading.client import TradingClient

from engine.config import RunConfig
from engine.credentials import Credentials
from engine.data.alpaca import DEFAULT_ADJUSTMENT, DEFAULT_FEED, alpaca_timeframe, with_timeouts
from engine.errors import BrokerError
from engine.live.desk import explained
from engine.live.inbox import Inbox
from engine.live.streams import BARS, TRADES, Streams
from engine.trading.orders import QUANTITY_EPSILON

Answer = TypeVar("Answer")

# A clock that is off by more would put bars into the wrong minute.
_CLOCK_SECONDS = 2.0
_CONNECT_SECONDS = 10.0
_CENT = 0.01


class Connection:
    """One account's clients and streams; a context manager that leaves no thread and no socket behind.

    Attributes:
        inbox: what comes from the streams.
        trading: the SDK's trading client, for orders and the account.
        account: Alpaca's own fields of the account at the start.
    """

    def __init__(self, credentials: Credentials, config: RunConfig, *, streamed: bool) -> None:
        """``streamed``: the bars come through the market data stream (minutes), and are not fetched."""
        keys = (credentials.key, credentials.secret)
        self._credentials = credentials
        self._config = config
        self._feed = config.data.feed or DEFAULT_FEED
        self._adjustment = config.data.adjustment or DEFAULT_ADJUSTMENT
        self.inbox = Inbox()
        self.trading = with_timeouts(
            TradingClient(*keys, paper=True, raw_data=True, url_override=credentials.trading_url)
        )
        self._data = with_timeouts(StockHistoricalDataClient(*keys, raw_data=True, url_override=credentials.data_url))
        self._timeframe = alpaca_timeframe(config.data.timeframe)
        self._streams = Streams(
            credentials,
            self.inbox,
            symbols=tuple(sorted(config.data.symbols)) if streamed else (),
            feed=self._feed,
            silent_seconds=None if credentials.local else 180.0,
        )
        self.account: dict[str, Any] = {}
        self._clock: dict[str, Any] = {}

    # --- the first checks ------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Ask everything that can be asked without sending an order; what a user should know, one sentence each.

        Raises:
            BrokerError: the keys are refused, the account is blocked or not empty, a symbol cannot be traded, fractions
                are not allowed, the clock is off; one sentence that lists all that is wrong.
        """
        account: Any = self.asked("the account", self.trading.get_account)
        self.account = account
        wrong: list[str] = []
        wrong += self._account_problems()
        for symbol in sorted(self._config.data.symbols):
            wrong += self._asset_problems(symbol)
        wrong += self._leftovers()
        wrong += self._clock_problems()
        if wrong:
            raise BrokerError(f"nothing was sent, because {len(wrong)} thing(s) are not right: " + "; ".join(wrong))
        return self._market_remarks()

    def asked(self, what: str, call: Callable[[], Answer]) -> Answer:
        """The answer to a harmless question; every failure as a BrokerError that says what was asked."""
        try:
            return call()
        except APIError as error:
            status, message, _ = explained(error)
            if status in (401, 403):
                raise BrokerError(
                    f"the broker refuses the key {self._credentials.masked} ({status}: {message}); check "
                    "APCA_API_KEY_ID and APCA_API_SECRET_KEY, which must be of a paper account"
                ) from error
            raise BrokerError(f"the broker did not answer for {what} ({status}: {message}); try again later") from error
        except requests.RequestException as error:
            raise BrokerError(
                f"the broker could not be reached for {what} ({type(error).__name__}); check the network, or use "
                "--replay, which needs none"
            ) from error

    def _account_problems(self) -> list[str]:
        account, broker = self.account, self._config.broker
        wrong = [
            f"the account is marked {name}"
            for name in ("trading_blocked", "account_blocked", "trade_suspended_by_user")
            if account.get(name)
        ]
        if str(account.get("status", "")).upper() != "ACTIVE":
            wrong.append(f"the account is {account.get('status')}, expected ACTIVE")
        if float(account["cash"]) < broker.cash - _CENT:
            wrong.append(
                f"broker.cash is {broker.cash:.2f}, and the account holds {float(account['cash']):.2f}; "
                "lower broker.cash, or reset the paper account"
            )
        if broker.short and not account.get("shorting_enabled", True):
            wrong.append("broker.short is true, and the account may not sell short")
        return wrong

    def _asset_problems(self, symbol: str) -> list[str]:
        try:
            asset: Any = self.asked(symbol, lambda: self.trading.get_asset(symbol))
        except BrokerError as error:
            if "(404" in str(error):
                return [f"{symbol} is not known to the broker"]
            raise
        wrong = []
        if not asset.get("tradable"):
            wrong.append(f"{symbol} cannot be traded")
        if self._config.broker.fractional and not asset.get("fractionable"):
            wrong.append(f"broker.fractional is true, and {symbol} is traded in whole shares only")
        if self._config.broker.short and not asset.get("shortable"):
            wrong.append(f"broker.short is true, and {symbol} cannot be sold short")
        return wrong

    def _leftovers(self) -> list[str]:
        """A new run starts from nothing: what it did not trade itself it would not know how to value."""
        symbols = frozenset(self._config.data.symbols)
        positions: Any = self.asked("positions", self.trading.get_all_positions)
        orders: Any = self.asked("open orders", self.trading.get_orders)
        held = sorted(position["symbol"] for position in positions if position["symbol"] in symbols)
        waiting = sorted({order["symbol"] for order in orders if order["symbol"] in symbols})
        wrong = []
        if held:
            wrong.append(f"the account holds {', '.join(held)} already; close the positions first")
        if waiting:
            wrong.append(f"the account has open orders in {', '.join(waiting)}; cancel them first")
        return wrong

    def _clock_problems(self) -> list[str]:
        clock: Any = self.asked("the clock", self.trading.get_clock)
        self._clock = clock
        if self._credentials.local:
            return []
        off = time.time() - datetime.fromisoformat(self._clock["timestamp"]).timestamp()
        if abs(off) <= _CLOCK_SECONDS:
            return []
        return [f"this machine's clock is {off:+.1f} seconds off the broker's; set it (by NTP)"]

    def _market_remarks(self) -> list[str]:
        if self._clock.get("is_open"):
            return []
        return [f"the market is closed; the next session opens at {self._clock.get('next_open')}"]

    def differences(self, cash: float, held: Mapping[str, float], *, costs: float) -> list[str]:
        """Where the broker's account differs from our ledger, one sentence each.

        Args:
            cash: what our account has gained since the start, account currency.
            held: symbol -> signed quantity by our ledger.
            costs: commission and interest in ``cash`` that the broker may not have charged.
        """
        account: Any = self.asked("the account", self.trading.get_account)
        positions: Any = self.asked("positions", self.trading.get_all_positions)
        theirs = {str(p["symbol"]): float(p["qty"]) for p in positions}
        found = [
            f"{symbol}: {held[symbol]:g} by our ledger, {theirs.get(symbol, 0.0):g} at the broker"
            for symbol in sorted(held)
            if abs(theirs.get(symbol, 0.0) - held[symbol]) > QUANTITY_EPSILON
        ]
        gained = float(account["cash"]) - float(self.account["cash"])
        if min(abs(gained - cash), abs(gained - cash - costs)) > _CENT:
            found.append(f"cash has changed by {cash:.2f} by our ledger, by {gained:.2f} at the broker")
        return found

    # --- bars and streams ------------------------------------------------------------------------------------------

    def rows(self, start: datetime, end: datetime) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Alpaca's own rows of all symbols whose bars start in [start, end]."""
        request = StockBarsRequest(
            symbol_or_symbols=sorted(self._config.data.symbols),
            timeframe=self._timeframe,
            start=start,
            end=end,
            feed=DataFeed(self._feed),
            adjustment=Adjustment(self._adjustment),
        )
        found: Any = self.asked("bars", lambda: self._data.get_stock_bars(request))
        return dict(found)

    def open(self) -> None:
        """Open the streams and wait until they are ready.

        Raises:
            BrokerError: they are refused, or not ready in time.
        """
        self._streams.start()
        wanted = set(self._streams.names)
        ready = self.inbox.wait(lambda: wanted <= self.inbox.connected, _CONNECT_SECONDS)
        if not ready and not self.inbox.stopped:
            missing = ", ".join(sorted(wanted - self.inbox.connected))
            raise BrokerError(
                f"the {missing} stream did not connect within {_CONNECT_SECONDS:g} seconds; check the network"
            )

    def states(self) -> tuple[str, str, int]:
        """Feed and broker in words, and how often a connection was made anew."""
        connected = self.inbox.connected
        names = self._streams.names
        feed = ("connected" if BARS in connected else "lost") if BARS in names else "polled"
        return feed, "connected" if TRADES in connected else "lost", self.inbox.reconnects

    def close(self) -> None:
        """Close streams and sessions."""
        self._streams.stop()
        self.trading._session.close()
        self._data._session.close()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

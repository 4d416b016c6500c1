"""The way to Alpaca, or to an exchange on this machine that speaks as Alpaca does: clients, streams, first checks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from alpaca.data.enums import Adjustment, DataFeed
from alpaca.data.historical.stock import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import QueryOrderStatus
from alpaca.trading.requests import GetOrdersRequest

from engine.config import RunConfig
from engine.credentials import Credentials
from engine.data.alpaca import DEFAULT_ADJUSTMENT, DEFAULT_FEED, alpaca_timeframe
from engine.errors import BrokerError
from engine.live.inbox import Inbox
from engine.live.longer import longer_rows
from engine.live.rest import FORBIDDEN, TOO_MANY, UNAUTHORIZED, AccountLock, Line, NoAnswer, answered
from engine.live.streams import BARS, TRADES, Streams
from engine.live.verifier import Account, Holding, Waiting

# A clock that is off by more would put bars into the wrong minute.
_CLOCK_SECONDS = 2.0
_CONNECT_SECONDS = 10.0
_CENT = 0.01
# Before a question is asked again that came on top of too many in this minute.
_AGAIN_SECONDS = (1.0, 2.0, 4.0)
_MOST_ORDERS = 500
_LAST_MINUTES = timedelta(minutes=5)
_BARS_ASKED = "bars"
# Statuses of legs that are over, beside an entry that is not.
_OVER = frozenset({"filled", "canceled", "expired", "rejected", "replaced"})


class Connection:
    """One account's clients and streams; a context manager that leaves no thread and no socket behind.

    While it is entered, no other run on this machine can enter one of the same account.

    Attributes:
        inbox: what comes from the streams.
        trading: the SDK's trading client, for orders and the account.
        account: Alpaca's own fields of the account at the start.
    """

    def __init__(
        self,
        credentials: Credentials,
        config: RunConfig,
        *,
        streamed: bool,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Make the clients; nothing is asked yet.

        Args:
            streamed: the bars come through the market data stream (minutes), and are not fetched.
            now: this machine's clock, Unix seconds.
        """
        keys = (credentials.key, credentials.secret)
        self._credentials = credentials
        self._config = config
        self._now = now
        self._feed = config.data.feed or DEFAULT_FEED
        self._adjustment = config.data.adjustment or DEFAULT_ADJUSTMENT
        self.inbox = Inbox()
        self._line = line = Line(lambda: self.inbox.stopped)
        self.trading = line.carry(TradingClient(*keys, paper=True, raw_data=True, url_override=credentials.trading_url))
        self._data = line.carry(StockHistoricalDataClient(*keys, raw_data=True, url_override=credentials.data_url))
        self._timeframe = alpaca_timeframe(config.data.base or config.data.timeframe)
        self._streams = Streams(
            credentials,
            self.inbox,
            symbols=self.symbols if streamed else (),
            feed=self._feed,
        )
        self.account: Any = {}
        # Until a run trades, one failure of the broker is no reason to give up.
        self._begins = True
        self._lock = AccountLock(f"{credentials.trading_url or ''} {credentials.key}", credentials.masked)

    @property
    def local(self) -> bool:
        """Whether it is an exchange on this machine."""
        return self._credentials.local

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that are traded."""
        return tuple(sorted(self._config.data.symbols))

    # --- the first checks ------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Ask everything that can be asked without sending an order; what a user should know, one sentence each.

        Raises:
            BrokerError: the keys are refused, the account is blocked, a symbol cannot be traded, fractions are not
                allowed, the clock is off, or the plan does not include the feed; one sentence that lists all that is
                wrong.
        """
        self.account = self.asked("the account", self.trading.get_account)
        clock: Any = self.asked("the clock", self.trading.get_clock)
        now = self._now()
        try:
            wrong = [
                *self._account_problems(),
                *(problem for symbol in sorted(self._config.data.symbols) for problem in self._asset_problems(symbol)),
                *self._clock_problems(clock, now),
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _no_account(error) from error
        if wrong:
            raise _not_right(wrong)
        end = datetime.fromtimestamp(now, tz=UTC)
        self.rows(end - _LAST_MINUTES, end)  # refused here, and not at the first minute that has to be fetched
        if clock.get("is_open"):
            return []
        return [f"the market is closed; the next session opens at {clock.get('next_open')}"]

    def check_start(self) -> None:
        """What a run that begins needs beyond ``check``: the cash of the run file, and nothing held or waiting.

        Raises:
            BrokerError: one sentence that lists all that is wrong.
        """
        try:
            wrong = [*self._cash_problems(), *self._leftovers()]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _no_account(error) from error
        if wrong:
            raise _not_right(wrong)

    def asked(self, what: str, call: Callable[[], Any], *, missing: Any = None) -> Any:
        """The answer to a harmless question.

        Args:
            missing: the answer where the broker knows no such thing.

        Raises:
            NoAnswer: the broker was not reached, failed, or was asked too often; it may be asked again later.
            BrokerError: it refuses to answer.
        """
        return answered(what, call, missing=missing, refusal=self._refusal, rest=self._rests, insists=self._begins)

    def _rests(self, tries: int) -> bool:
        """Wait before a question is asked again; whether it is to be."""
        if tries > len(_AGAIN_SECONDS) or self.inbox.stopped:
            return False
        self.inbox.wait(lambda: False, _AGAIN_SECONDS[tries - 1])
        return True

    def _refusal(self, what: str, status: int, message: str) -> BrokerError:
        if status == FORBIDDEN and what == _BARS_ASKED:
            return BrokerError(
                f"the broker refuses the bars of data.feed: {self._feed} ({status}: {message}); the account's plan "
                "does not include it: set data.feed to iex, which every account may read, or subscribe to it"
            )
        if status in (UNAUTHORIZED, FORBIDDEN):
            return BrokerError(
                f"the broker refuses the key {self._credentials.masked} ({status}: {message}); check "
                "APCA_API_KEY_ID and APCA_API_SECRET_KEY, which must be of a paper account"
            )
        if status == TOO_MANY or status >= 500:
            return NoAnswer(f"the broker did not answer for {what} ({status}: {message}); try again later")
        return BrokerError(f"the broker refuses to answer for {what} ({status}: {message})")

    def _account_problems(self) -> list[str]:
        account, broker = self.account, self._config.broker
        wrong = [
            f"the account is marked {name}"
            for name in ("trading_blocked", "account_blocked", "trade_suspended_by_user")
            if account.get(name)
        ]
        if str(account.get("status", "")).upper() != "ACTIVE":
            wrong.append(f"the account is {account.get('status')}, expected ACTIVE")
        if broker.short and not account.get("shorting_enabled", True):
            wrong.append("broker.short is true, and the account may not sell short")
        return wrong

    def _cash_problems(self) -> list[str]:
        has, wanted = float(self.account["cash"]), self._config.broker.cash
        if has >= wanted - _CENT:
            return []
        return [
            f"broker.cash is {wanted:.2f}, and the account has {has:.2f}; lower broker.cash, or reset the paper account"
        ]

    def _asset_problems(self, symbol: str) -> list[str]:
        nothing: dict[str, Any] = {}
        asset: Any = self.asked(symbol, lambda: self.trading.get_asset(symbol), missing=nothing)
        if not asset:
            return [f"{symbol} is not known to the broker"]
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
        # Of the symbols alone: the list is cut after so many, and other people's orders come first.
        request = GetOrdersRequest(symbols=sorted(symbols), limit=_MOST_ORDERS)
        orders: Any = self.asked("open orders", lambda: self.trading.get_orders(request))
        held = sorted(position["symbol"] for position in positions if position["symbol"] in symbols)
        waiting = sorted({order["symbol"] for order in orders if order["symbol"] in symbols})
        wrong = []
        if held:
            wrong.append(f"the account holds {', '.join(held)} already; close the positions first")
        if waiting:
            wrong.append(f"the account has open orders in {', '.join(waiting)}; cancel them first")
        return wrong

    def _clock_problems(self, clock: Mapping[str, Any], now: float) -> list[str]:
        off = now - datetime.fromisoformat(clock["timestamp"]).timestamp()
        if self._credentials.local or abs(off) <= _CLOCK_SECONDS:
            return []
        return [f"this machine's clock is {off:+.1f} seconds off the broker's; set it (by NTP)"]

    def holdings(self) -> Account:
        """Cash, positions and open orders of the account, of all symbols.

        Raises:
            NoAnswer, BrokerError: see ``asked``.
        """
        cash: Any = self.asked("the account", self._cash)
        held: Any = self.asked("positions", self._positions)
        orders: Any = self.asked("open orders", self._waiting)
        return Account(cash, held, orders)

    def _cash(self) -> float:
        account: Any = self.trading.get_account()
        return float(account["cash"])

    def _positions(self) -> dict[str, Holding]:
        positions: Any = self.trading.get_all_positions()
        return {str(p["symbol"]): Holding(float(p["qty"]), float(p["avg_entry_price"])) for p in positions}

    def _waiting(self) -> dict[str, Waiting]:
        request = GetOrdersRequest(status=QueryOrderStatus.OPEN, limit=_MOST_ORDERS, nested=True)
        orders: Any = self.trading.get_orders(request)
        # A leg is its entry's sender's: its own client id is the broker's.
        sent = [(one, order) for order in orders for one in (order, *(order.get("legs") or []))]
        return {
            str(one["id"]): Waiting(str(one["symbol"]), str(order["client_order_id"]))
            for one, order in sent
            if one["status"] not in _OVER
        }

    def is_open(self) -> bool:
        """Whether the market is open by the broker's clock, which knows of closures that no calendar does.

        Raises:
            NoAnswer, BrokerError: see ``asked``.
        """
        clock: Any = self.asked("the clock", self.trading.get_clock)
        if not isinstance(clock, dict) or not isinstance(clock.get("is_open"), bool):
            raise NoAnswer("the broker's clock does not say whether the market is open; try again later")
        return bool(clock["is_open"])

    # --- bars and streams ------------------------------------------------------------------------------------------

    def rows(self, start: datetime, end: datetime) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Alpaca's rows of all symbols whose bars start in [start, end]; see ``asked`` for what it raises.

        Where the run file has a ``data.base``, its bars are asked for, and the rows are of what they make.
        """
        request = StockBarsRequest(
            symbol_or_symbols=sorted(self._config.data.symbols),
            timeframe=self._timeframe,
            start=start,
            end=end,
            feed=DataFeed(self._feed),
            adjustment=Adjustment(self._adjustment),
        )

        def rows() -> Mapping[str, Sequence[Mapping[str, Any]]]:
            answer: Any = self._data.get_stock_bars(request)
            found = {str(symbol): [dict(row) for row in own] for symbol, own in dict(answer).items()}
            data = self._config.data
            if data.base is None:
                return found
            return longer_rows(found, base=data.base, timeframe=data.timeframe, start=start, end=end)

        asked: Mapping[str, Sequence[Mapping[str, Any]]] = self.asked(_BARS_ASKED, rows)
        return asked

    def open(self) -> None:
        """Open the streams and wait until they are ready.

        Raises:
            BrokerError: they are refused, or not ready in time.
        """
        self._begins = False
        self._streams.start()
        wanted = set(self._streams.names)
        ready = self.inbox.wait(lambda: wanted <= self.inbox.connected, _CONNECT_SECONDS)
        if not ready and not self.inbox.stopped:
            missing = ", ".join(sorted(wanted - self.inbox.connected))
            said = [event.detail for event in self.inbox.take_events() if event.detail]
            raise BrokerError(
                f"the {missing} stream did not connect within {_CONNECT_SECONDS:g} seconds"
                f"{f' ({said[-1]})' if said else ''}; check the network"
            )

    def renew_bars(self) -> None:
        """Have the market data stream's connection made anew."""
        self._streams.renew(BARS)

    def states(self) -> tuple[str, str, int]:
        """Feed and broker in words, and how often a connection was made anew."""
        connected = self.inbox.connected
        names = self._streams.names
        feed = ("connected" if BARS in connected else "lost") if BARS in names else "polled"
        return feed, "connected" if TRADES in connected else "lost", self.inbox.reconnects

    def close(self) -> None:
        """Close streams and sessions."""
        self._streams.stop()
        self._line.close()
        self.trading._session.close()
        self._data._session.close()
        self._lock.release()

    def __enter__(self) -> Connection:
        self._lock.take()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _no_account(error: Exception) -> BrokerError:
    return BrokerError(
        f"the broker answered with what is no account ({type(error).__name__}: {error}); is there another server at "
        "its address?"
    )


def _not_right(wrong: Sequence[str]) -> BrokerError:
    return BrokerError(f"nothing was sent, because {len(wrong)} thing(s) are not right: " + "; ".join(wrong))

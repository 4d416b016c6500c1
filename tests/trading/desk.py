"""A desk to trade from in tests: a venue with its account, fed bar by bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from engine.trading.costs import Costs
from engine.trading.ledger import Ledger
from engine.trading.orders import BUY, SELL, Fill, Order
from engine.trading.venue import Bar, Event, Venue

Prices = tuple[float, float, float, float]


class Desk:
    """Symbols X, Y and Z, last closed at 100. Each ``bars`` is a session of one bar, unless told otherwise."""

    def __init__(
        self,
        *,
        cash: float = 10_000.0,
        account: Literal["margin", "cash"] = "margin",
        fractional: bool = False,
        short: bool = False,
        **costs: float,
    ) -> None:
        self.closes: dict[str, float] = {"X": 100.0, "Y": 100.0, "Z": 100.0}
        self.ledger = Ledger(cash)
        self.venue = Venue(
            ledger=self.ledger,
            costs=Costs(**costs),
            prices=self.closes,
            account=account,
            fractional=fractional,
            short=short,
        )
        self.time = 0
        self.session = 0
        self.orders: list[Order] = []

    def order(self, side: int, quantity: float, type: str = "market", **more: Any) -> Order:
        """Submit an order decided at the bar that was last seen."""
        made: dict[str, Any] = {"symbol": "X", "decided": self.time, **more}
        order = Order(id=len(self.orders) + 1, side=side, quantity=quantity, type=type, **made)  # type: ignore[arg-type]
        self.orders.append(order)
        self.venue.submit(order)
        return order

    def buy(self, quantity: float, type: str = "market", **more: Any) -> Order:
        return self.order(BUY, quantity, type, **more)

    def sell(self, quantity: float, type: str = "market", **more: Any) -> Order:
        return self.order(SELL, quantity, type, **more)

    def bracket(
        self, quantity: float, *, stop: float, target: float, side: int = BUY, type: str = "market", **entry: Any
    ) -> tuple[Order, Order, Order]:
        """An entry with a stop and a target, of which one cancels the other."""
        parent = self.order(side, quantity, type, **entry)
        legs: dict[str, Any] = {"parent": parent, "group": 1000 + parent.id}
        legs["time_in_force"] = parent.time_in_force
        stop_leg = self.order(-side, quantity, "stop", stop_price=stop, **legs)
        target_leg = self.order(-side, quantity, "limit", limit_price=target, **legs)
        return parent, stop_leg, target_leg

    def bars(
        self, bars: Mapping[str, Prices], *, ends: bool = True, same_session: bool = False, days: int = 1
    ) -> list[Event]:
        """Complete the next bars; ``days`` after the last session."""
        self.time += 1
        self.session += 0 if same_session else days
        taken = {symbol: Bar(*prices) for symbol, prices in bars.items()}
        events = self.venue.on_bars(time=self.time, session=self.session, session_ends=ends, bars=taken)
        self.closes.update({symbol: bar.close for symbol, bar in taken.items()})
        return events

    def bar(self, open_: float, high: float, low: float, close: float, **more: Any) -> list[Event]:
        """Complete the next bar of X."""
        return self.bars({"X": (open_, high, low, close)}, **more)

    def flat_bar(self, price: float = 100.0, **more: Any) -> list[Event]:
        """A bar of X that does not move."""
        return self.bar(price, price, price, price, **more)

    @property
    def fills(self) -> list[Fill]:
        return self.ledger.fills

    @property
    def fill_prices(self) -> list[float]:
        return [fill.price for fill in self.ledger.fills]

    def held(self, symbol: str = "X") -> float:
        return self.ledger.quantity(symbol)

    def equity(self) -> float:
        return self.ledger.equity(self.closes)

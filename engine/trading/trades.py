"""Round trips from fills."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from engine.trading.ledger import position_after
from engine.trading.orders import Fill


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """A symbol's way from no position back to none, or to the last price while ``open``.

    Prices are averages over the fills; ``pnl`` is net of commission, in account currency; ``return_pct`` is pnl over
    the value at entry. Interest is the account's, not the trade's.
    """

    symbol: str
    side: str
    entry_time: int
    exit_time: int
    quantity: float
    entry_price: float
    exit_price: float
    pnl: float
    return_pct: float
    commission: float
    open: bool


@dataclass(slots=True)
class _Round:
    side: int
    entry_time: int
    entered: float = 0.0
    paid: float = 0.0
    exited: float = 0.0
    received: float = 0.0
    commission: float = 0.0

    def trade(self, symbol: str, exit_time: int, mark: float | None) -> Trade:
        rest = self.entered - self.exited if mark is not None else 0.0
        received = self.received + rest * (mark or 0.0)
        pnl = self.side * (received - self.paid) - self.commission
        return Trade(
            symbol=symbol,
            side="long" if self.side > 0 else "short",
            entry_time=self.entry_time,
            exit_time=exit_time,
            quantity=self.entered,
            entry_price=self.paid / self.entered,
            exit_price=received / (self.exited + rest),
            pnl=pnl,
            return_pct=100.0 * pnl / self.paid,
            commission=self.commission,
            open=mark is not None,
        )


def round_trips(fills: Iterable[Fill], *, last_prices: Mapping[str, float], last_time: int) -> list[Trade]:
    """Trades in the order in which they end; positions still open come last, marked at ``last_prices``.

    A fill that crosses zero ends one trade and begins the next; its commission is split by quantity.
    """
    trades: list[Trade] = []
    rounds: dict[str, _Round] = {}
    held: dict[str, float] = {}
    for fill in fills:
        quantity = held.get(fill.symbol, 0.0)
        after, _ = position_after(quantity, 0.0, fill.signed_quantity, fill.price)
        closing = min(abs(quantity), fill.quantity) if quantity * fill.side < 0.0 else 0.0
        if closing:
            current = rounds[fill.symbol]
            current.exited += closing
            current.received += closing * fill.price
            current.commission += fill.commission * closing / fill.quantity
            if after == 0.0 or after * quantity < 0.0:
                trades.append(rounds.pop(fill.symbol).trade(fill.symbol, fill.time, None))
        opening = fill.quantity - closing
        if opening and after:
            current = rounds.setdefault(fill.symbol, _Round(fill.side, fill.time))
            current.entered += opening
            current.paid += opening * fill.price
            current.commission += fill.commission * opening / fill.quantity
        held[fill.symbol] = after
    still_open = [rounds[symbol].trade(symbol, last_time, last_prices[symbol]) for symbol in sorted(rounds)]
    return trades + still_open

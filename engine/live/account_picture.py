"""What of an account is shown after a kill: its orders and positions, the run's own and those of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.live.account_rest import Order
from engine.trading.orders import QUANTITY_EPSILON, QUANTITY_PLACES


@dataclass(frozen=True, kw_only=True)
class Told:
    """An order of the account: its sender's id, and the quantity (positive) that was ordered and filled."""

    client_id: str
    symbol: str
    side: str
    quantity: float
    filled: float
    type: str
    status: str
    broker_id: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """The account as it is.

    Attributes:
        cash, equity: account currency.
        held: symbol -> signed quantity, of the run's own positions.
        open_orders: of the run. left_alone: what is none of the run's business, in sentences.
        covered: whether all that the run holds is being closed by an open order.
        closed_until: when the market opens next, where it is closed; else empty.
    """

    cash: float
    equity: float
    held: dict[str, float]
    open_orders: tuple[Told, ...]
    left_alone: tuple[str, ...]
    covered: bool
    closed_until: str

    @property
    def flat(self) -> bool:
        """Whether the run holds nothing, and nothing may still come."""
        return not self.held and not self.open_orders


def told(order: Order) -> Told:
    """An order as it is shown."""
    return Told(
        client_id=client_id_of(order),
        symbol=str(order["symbol"]),
        side=str(order["side"]),
        quantity=float(order.get("qty") or 0.0),
        filled=float(order.get("filled_qty") or 0.0),
        type=str(order.get("type", "market")),
        status=str(order["status"]),
        broker_id=str(order["id"]),
    )


def wish(client_id: str, symbol: str, quantity: float) -> Told:
    """The order that closes a position of this signed quantity, before it is sent."""
    side: Any = "sell" if quantity > 0.0 else "buy"
    return Told(
        client_id=client_id,
        symbol=symbol,
        side=side,
        quantity=abs(quantity),
        filled=0.0,
        type="market",
        status="intended",
        broker_id="",
    )


def client_id_of(order: Order) -> str:
    """The id that its sender gave an order."""
    return str(order.get("client_order_id", ""))


def strange_positions(held: Mapping[str, float], own: Mapping[str, float]) -> list[str]:
    """The positions, or the parts of them, that are not the run's own, in sentences."""
    sentences = []
    for symbol, quantity in sorted(held.items()):
        more = round(quantity - own.get(symbol, 0.0), QUANTITY_PLACES)
        if more:
            of = f" of the {quantity:g}" if symbol in own else ""
            sentences.append(f"{symbol}: {more:g}{of} held, which no order of this run explains")
    return sentences


def sentence_of(order: Told) -> str:
    """An open order of somebody else, in words."""
    return (
        f"{order.symbol}: an order of somebody else, {order.side} {order.quantity:g} {order.type} ({order.client_id})"
    )


def is_covered(symbol: str, quantity: float, orders: Sequence[Told]) -> bool:
    """Whether open orders close the whole of a position."""
    side = "sell" if quantity > 0.0 else "buy"
    closing = sum(o.quantity - o.filled for o in orders if (o.symbol, o.side, o.type) == (symbol, side, "market"))
    return closing >= abs(quantity) - QUANTITY_EPSILON

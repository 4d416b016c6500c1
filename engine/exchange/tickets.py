"""What a client asks for in an order, checked as Alpaca checks it before the account is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TypeVar, cast, get_args

from engine.exchange.refusals import Refusal, invalid
from engine.trading.orders import BUY, QUANTITY_PLACES, SELL, Order, OrderType, TimeInForce

_T = TypeVar("_T")

_SIDES = {"buy": BUY, "sell": SELL}
_TYPES: tuple[OrderType, ...] = get_args(OrderType)
_TIMES_IN_FORCE: tuple[TimeInForce, ...] = get_args(TimeInForce)
_INTENTS = {"buy_to_open": BUY, "buy_to_close": BUY, "sell_to_open": SELL, "sell_to_close": SELL}
_LONGEST_CLIENT_ID = 128


@dataclass(frozen=True, kw_only=True)
class Leg:
    """An exit that an entry brings along; a price is NaN where its type has none."""

    type: OrderType
    limit_price: float = math.nan
    stop_price: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """An order that is well-formed. ``client_order_id`` is empty where the client gave none."""

    symbol: str
    side: int
    quantity: float
    type: OrderType
    time_in_force: TimeInForce
    limit_price: float
    stop_price: float
    order_class: str
    client_order_id: str
    target: Leg | None = None
    stop: Leg | None = None


def read_ticket(body: Any, *, fractional: bool) -> Ticket:
    """The order of a POST body.

    Args:
        fractional: whether the account may trade fractions of a share.

    Raises:
        Refusal: it is malformed, or asks for what this exchange does not do; one sentence says what.
    """
    fields = _mapping(body, "the order")
    _refuse_unsupported(fields)
    side = _choice(fields, "side", _SIDES)
    kind = _choice(fields, "type", {name: name for name in _TYPES}, default="market")
    time_in_force = _choice(fields, "time_in_force", {name: name for name in _TIMES_IN_FORCE})
    intent = fields.get("position_intent")
    if intent is not None and _INTENTS.get(str(intent)) != side:
        raise invalid(f"position_intent {intent!r} does not go with side {fields['side']!r}")
    quantity = read_quantity(fields.get("qty"))
    _check_fraction(quantity, kind, time_in_force, fractional)
    order_class, target, stop = _exits(fields, side)
    if order_class != "simple" and quantity != math.trunc(quantity):
        raise invalid(f"fractional orders must be simple orders, found order_class {order_class!r}")
    return Ticket(
        symbol=_text(fields, "symbol"),
        side=side,
        quantity=quantity,
        type=kind,
        time_in_force=time_in_force,
        limit_price=_price_of(fields, "limit_price", needed=kind in ("limit", "stop_limit"), kind=kind),
        stop_price=_price_of(fields, "stop_price", needed=kind in ("stop", "stop_limit"), kind=kind),
        order_class=order_class,
        client_order_id=read_client_id(fields),
        target=target,
        stop=stop,
    )


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What an order is to become; a price is NaN where its type has none."""

    quantity: float
    limit_price: float
    stop_price: float
    time_in_force: TimeInForce


def read_changes(order: Order, quantity: float, body: Mapping[str, Any], *, fractional: bool) -> Changes:
    """The changes of a PATCH body, and the order's own values for the rest.

    Args:
        quantity: what the order asks for now.
        fractional: whether the account may trade fractions of a share.

    Raises:
        Refusal: they are malformed, do not go with the order's type, or change nothing.
    """
    changes = Changes(
        quantity=quantity if body.get("qty") is None else read_quantity(body["qty"]),
        limit_price=_changed_price(order, body, "limit_price"),
        stop_price=_changed_price(order, body, "stop_price"),
        time_in_force=(
            order.time_in_force
            if body.get("time_in_force") is None
            else _choice(body, "time_in_force", {name: name for name in _TIMES_IN_FORCE})
        ),
    )
    _check_fraction(changes.quantity, order.type, changes.time_in_force, fractional)
    present = Changes(
        quantity=quantity,
        limit_price=order.limit_price,
        stop_price=order.stop_price,
        time_in_force=order.time_in_force,
    )
    if repr(changes) == repr(present):  # NaN is no price, and equal to none
        raise invalid("nothing to replace: give another qty, limit_price, stop_price or time_in_force")
    return changes


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Shares that come into an account from outside, or leave it (a negative quantity), at a price each."""

    symbol: str
    quantity: float
    price: float


def read_transfer(body: Any) -> Transfer:
    """The transfer of a body with symbol, signed qty, and price.

    Raises:
        Refusal: it is malformed.
    """
    fields = _mapping(body, "the transfer")
    quantity = _decimal(fields.get("qty"), "qty")
    size = read_quantity(str(abs(quantity)))
    return Transfer(
        symbol=_text(fields, "symbol"),
        quantity=size if quantity > 0 else -size,
        price=read_price(fields.get("price"), "price"),
    )


def _changed_price(order: Order, body: Mapping[str, Any], name: str) -> float:
    present = float(getattr(order, name))
    if body.get(name) is None:
        return present
    if math.isnan(present):
        raise invalid(f"{order.type} orders take no {name}, found {body[name]}")
    return read_price(body[name], name)


def _check_fraction(quantity: float, kind: OrderType, time_in_force: TimeInForce, fractional: bool) -> None:
    if quantity == math.trunc(quantity):
        return
    if not fractional:
        raise invalid(f"qty must be a whole number of shares, found {quantity}: the asset is not fractionable")
    if kind != "market" or time_in_force != "day":
        raise invalid("fractional orders must be market orders with time_in_force day")


def _refuse_unsupported(fields: Mapping[str, Any]) -> None:
    if fields.get("notional") is not None:
        raise invalid("notional orders are not supported here; give qty")
    if fields.get("extended_hours"):
        raise invalid("extended_hours is not supported here: the bars are of regular sessions")
    if fields.get("type") == "trailing_stop":
        raise invalid("trailing_stop orders are not supported here: a bar does not tell what they would do inside it")
    if fields.get("order_class") in ("oco", "mleg"):
        raise invalid(f"order_class {fields['order_class']!r} is not supported here; use simple, bracket or oto")
    if fields.get("legs"):
        raise invalid("legs are for options, which are not supported here")


def _exits(fields: Mapping[str, Any], side: int) -> tuple[str, Leg | None, Leg | None]:
    """The order class, the take-profit leg and the stop-loss leg."""
    order_class = fields.get("order_class") or "simple"
    target, stop = fields.get("take_profit"), fields.get("stop_loss")
    given = sum(leg is not None for leg in (target, stop))
    expected = {"simple": 0, "oto": 1, "bracket": 2}.get(str(order_class))
    if expected is None:
        raise invalid(f"order_class must be simple, bracket or oto, found {order_class!r}")
    if given != expected:
        raise invalid(
            f"{order_class} orders take {expected} of take_profit and stop_loss, found {given}"
            + ("; use order_class bracket or oto" if expected == 0 else "")
        )
    target_leg = stop_leg = None
    if target is not None:
        values = _mapping(target, "take_profit")
        price = _price_of(values, "limit_price", needed=True, kind="take_profit")
        target_leg = Leg(type="limit", limit_price=price)
    if stop is not None:
        values = _mapping(stop, "stop_loss")
        price = _price_of(values, "stop_price", needed=True, kind="stop_loss")
        limited = values.get("limit_price") is not None
        limit = _price_of(values, "limit_price", needed=limited, kind="stop_loss")
        stop_leg = Leg(type="stop_limit" if limited else "stop", limit_price=limit, stop_price=price)
    if target_leg and stop_leg and side * (target_leg.limit_price - stop_leg.stop_price) <= 0.0:
        relation = "above" if side == BUY else "below"
        raise invalid(
            f"take_profit.limit_price must be {relation} stop_loss.stop_price, "
            f"found {target_leg.limit_price:g} and {stop_leg.stop_price:g}"
        )
    return str(order_class), target_leg, stop_leg


def read_quantity(value: Any, name: str = "qty") -> float:
    """A positive number of shares with at most nine decimal places.

    Raises:
        Refusal: it is not.
    """
    found = _decimal(value, name)
    if found <= 0:
        raise invalid(f"{name} must be > 0, found {value}")
    if _places(found) > QUANTITY_PLACES:
        raise invalid(f"{name} takes at most {QUANTITY_PLACES} decimal places, found {value}")
    return float(found)


def read_price(value: Any, name: str) -> float:
    """A positive price on the tick: two decimal places from $1 on, four below.

    Raises:
        Refusal: it is not.
    """
    found = _decimal(value, name)
    if found <= 0:
        raise invalid(f"{name} must be > 0, found {value}")
    allowed = 2 if found >= 1 else 4
    if _places(found) > allowed:
        raise invalid(
            f"invalid {name} {value}. sub-penny increment does not fulfill minimum pricing criteria: "
            f"{allowed} decimal places at this price"
        )
    return float(found)


def read_client_id(fields: Mapping[str, Any]) -> str:
    """The client's own id for the order, empty where there is none.

    Raises:
        Refusal: it is too long, or no text.
    """
    value = fields.get("client_order_id")
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _LONGEST_CLIENT_ID:
        raise invalid(f"client_order_id must be text of at most {_LONGEST_CLIENT_ID} characters")
    return value


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"{name} must be a JSON object")
    return value


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise invalid(f"{name} is required")
    return value


def _choice(fields: Mapping[str, Any], name: str, choices: Mapping[str, _T], default: str | None = None) -> _T:
    value = fields.get(name, default)
    if not isinstance(value, str) or value not in choices:
        raise invalid(f"invalid {name}: expected one of {', '.join(choices)}, found {value!r}")
    return choices[value]


def _price_of(fields: Mapping[str, Any], name: str, *, needed: bool, kind: str) -> float:
    value = fields.get(name)
    if not needed:
        if value is not None:
            raise invalid(f"{kind} orders take no {name}, found {value}")
        return math.nan
    if value is None:
        raise invalid(f"{kind} orders require {name}")
    return read_price(value, name)


def _decimal(value: Any, name: str) -> Decimal:
    """Exactly what was written: a JSON number by its shortest text."""
    refusal: Refusal = invalid(f"{name} must be a number, found {value!r}")
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > 40:
        raise refusal
    try:
        found = Decimal(str(value))
    except InvalidOperation:
        raise refusal from None
    if not found.is_finite() or not math.isfinite(float(found)):
        raise refusal
    return found


def _places(value: Decimal) -> int:
    """Decimal places in use: none for 10, 10.0 and 1E+1."""
    return max(0, -cast(int, value.normalize().as_tuple().exponent))

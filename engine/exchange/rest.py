"""Alpaca's REST interface: each route is a plain function of the exchange, the account and what was asked."""

from __future__ import annotations

import json
import time as wall_clock
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from engine.exchange import statements
from engine.exchange.account import Account
from engine.exchange.clients import Client
from engine.exchange.exchange import Exchange
from engine.exchange.history import asked_symbols, bars_page, count, latest_bars
from engine.exchange.hours import FIRST, LAST, sessions_between
from engine.exchange.listed import Listed
from engine.exchange.refusals import Refusal, invalid, not_found
from engine.exchange.wire import asset_id, nanoseconds, new_york_moment
from engine.trading.orders import SIDE_NAMES

MOST_BYTES_ASKED = 256 * 1024
_UNLIMITED = 1_000_000
_MOST_ORDERS, _USUAL_ORDERS = 500, 50
_LATEST_TIME = 2**62
_SKEW = 3_600_000_000_000  # an hour


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request that is authenticated: parameters of the path and of the query, and the JSON body or None."""

    exchange: Exchange
    client: Client
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any

    @property
    def account(self) -> Account:
        """The account that asks."""
        return self.client.account


Handler = Callable[[Asked], "tuple[int, Any]"]


class RateLimit:
    """Requests of a wall-clock minute for each account; None: as many as you like."""

    def __init__(self, requests_a_minute: int | None) -> None:
        self._limit = requests_a_minute
        self._minute = 0
        self._used: dict[str, int] = {}

    def take(self, account: Account) -> tuple[bool, list[tuple[bytes, bytes]]]:
        """Count a request: whether it may pass, and the headers that tell of the rest."""
        minute = int(wall_clock.time()) // 60
        if minute != self._minute:
            self._minute, self._used = minute, {}
        used = self._used[account.id] = self._used.get(account.id, 0) + 1
        limit = _UNLIMITED if self._limit is None else self._limit
        headers = [
            (b"x-ratelimit-limit", str(limit).encode()),
            (b"x-ratelimit-remaining", str(max(0, limit - used)).encode()),
            (b"x-ratelimit-reset", str((minute + 1) * 60).encode()),
        ]
        return self._limit is None or used <= limit, headers


# --- account and market --------------------------------------------------------------------------------------------


def _get_account(asked: Asked) -> tuple[int, Any]:
    return 200, statements.account_statement(asked.exchange, asked.account)


def _get_history(asked: Asked) -> tuple[int, Any]:
    since, until = _moment(asked.query, "start", 0), _moment(asked.query, "end", _LATEST_TIME)
    return 200, statements.portfolio_history(asked.exchange, asked.account, since=since, until=until)


def _get_clock(asked: Asked) -> tuple[int, Any]:
    now, sessions, faults = asked.exchange.now, asked.exchange.market.sessions, asked.exchange.faults
    if faults is not None and faults.take("skewed-clock"):
        now += _SKEW
    return 200, {
        "timestamp": new_york_moment(now),
        "is_open": sessions.is_open(now),
        "next_open": new_york_moment(sessions.next_open(now)),
        "next_close": new_york_moment(sessions.next_close(now)),
    }


def _get_calendar(asked: Asked) -> tuple[int, Any]:
    first, last = _day(asked.query, "start", FIRST), _day(asked.query, "end", LAST)
    return 200, sessions_between(max(first, FIRST), min(last, LAST)).rows


def _get_assets(asked: Asked) -> tuple[int, Any]:
    wanted = {"status": "active", "asset_class": "us_equity"}
    if any(asked.query.get(name, value) != value for name, value in wanted.items()):
        return 200, []
    return 200, [statements.asset(asked.account, symbol) for symbol in asked.exchange.market.series]


def _get_asset(asked: Asked) -> tuple[int, Any]:
    return 200, statements.asset(asked.account, _symbol(asked, "asset not found for"))


def _get_bars(asked: Asked) -> tuple[int, Any]:
    return 200, bars_page(asked.exchange, asked.query)


def _get_bars_of_one(asked: Asked) -> tuple[int, Any]:
    symbol = asked.path["symbol"]
    page = bars_page(asked.exchange, {**asked.query, "symbols": symbol})
    return 200, {"symbol": symbol, "bars": page["bars"].get(symbol, []), "next_page_token": page["next_page_token"]}


def _get_latest_bars(asked: Asked) -> tuple[int, Any]:
    return 200, {"bars": latest_bars(asked.exchange, asked_symbols(asked.query))}


# --- orders --------------------------------------------------------------------------------------------------------


def _post_order(asked: Asked) -> tuple[int, Any]:
    listed = asked.exchange.submit(asked.account, asked.body)
    return 200, _as_accepted(asked.exchange, listed)


def _get_orders(asked: Asked) -> tuple[int, Any]:
    query = asked.query
    status, direction = query.get("status", "open"), query.get("direction", "desc")
    if status not in ("open", "closed", "all") or direction not in ("asc", "desc"):
        raise invalid(f"invalid status {status!r} or direction {direction!r}: open, closed or all; asc or desc")
    nested = query.get("nested", "").lower() == "true"
    after, until = _moment(query, "after", -1), _moment(query, "until", _LATEST_TIME)
    symbols = {symbol for symbol in query.get("symbols", "").split(",") if symbol}
    side = query.get("side", "")
    listed: Iterable[Listed] = asked.account.listed.values()
    if status == "open":
        listed = asked.account.open_orders()
        if nested:
            listed = sorted({order.parent or order for order in listed}, key=lambda order: order.order.id)
    chosen = [
        order
        for order in listed
        if _is_listed(order, status, nested)
        and after < order.submitted <= until
        and (not symbols or order.order.symbol in symbols)
        and (not side or SIDE_NAMES[order.order.side] == side)
    ]
    if direction == "desc":
        chosen.reverse()
    limit = count(query, "limit", _USUAL_ORDERS, _MOST_ORDERS)
    return 200, [order.to_json(nested=nested) for order in chosen[:limit]]


def _is_listed(order: Listed, status: str, nested: bool) -> bool:
    """Whether a list of this status shows the order on its own: a held leg is shown under its entry only."""
    if nested and order.parent is not None:
        return False
    if status == "all":
        return True
    if nested:
        open_ = order.open or any(leg.open for leg in order.legs)
        return open_ if status == "open" else not open_
    return order.open and order.status != "held" if status == "open" else not order.open


def _cancel_orders(asked: Asked) -> tuple[int, Any]:
    return 207, _cancel_all(asked)


def _cancel_all(asked: Asked) -> list[dict[str, Any]]:
    answers = []
    for listed in asked.account.open_orders():
        if listed.open:  # the end of one before it may have ended it too
            asked.exchange.cancel(asked.account, listed)
        answers.append({"id": listed.id, "status": 200, "body": listed.to_json()})
    return answers


def _get_order(asked: Asked) -> tuple[int, Any]:
    nested = asked.query.get("nested", "").lower() == "true"
    return 200, asked.account.find(asked.path["id"]).to_json(nested=nested)


def _get_order_by_client_id(asked: Asked) -> tuple[int, Any]:
    return 200, asked.account.find_client_id(asked.query.get("client_order_id", "")).to_json(nested=True)


def _patch_order(asked: Asked) -> tuple[int, Any]:
    listed = asked.account.find(asked.path["id"])
    made = asked.exchange.replace(asked.account, listed, asked.body)
    return 200, made.to_json() if made.status == "held" else _as_accepted(asked.exchange, made)


def _delete_order(asked: Asked) -> tuple[int, Any]:
    asked.exchange.cancel(asked.account, asked.account.find(asked.path["id"]))
    return 204, None


def _as_accepted(exchange: Exchange, listed: Listed) -> dict[str, Any]:
    """An order as its POST answers it: pending in a session, accepted for the next one outside."""
    in_session = exchange.market.sessions.is_open(exchange.now)
    return listed.to_json(nested=True, status="pending_new" if in_session else "accepted")


# --- positions -----------------------------------------------------------------------------------------------------


def _get_positions(asked: Asked) -> tuple[int, Any]:
    return 200, statements.positions(asked.exchange, asked.account)


def _get_position(asked: Asked) -> tuple[int, Any]:
    symbol = _symbol(asked, "position does not exist:")
    if not asked.account.venue.ledger.quantity(symbol):
        raise not_found(f"position does not exist: {symbol}")
    return 200, statements.position(asked.exchange, asked.account, symbol)


def _close_position(asked: Asked) -> tuple[int, Any]:
    symbol = _symbol(asked, "position does not exist:")
    quantity, percentage = asked.query.get("qty"), asked.query.get("percentage")
    if quantity is not None and percentage is not None:
        raise invalid("give qty or percentage, not both")
    listed = asked.exchange.close(asked.account, symbol, quantity, percentage)
    return 200, _as_accepted(asked.exchange, listed)


def _close_positions(asked: Asked) -> tuple[int, Any]:
    if asked.query.get("cancel_orders", "").lower() == "true":
        _cancel_all(asked)
    answers: list[dict[str, Any]] = []
    ledger = asked.account.venue.ledger
    for symbol in sorted(symbol for symbol, held in ledger.positions.items() if held.quantity):
        try:
            listed = asked.exchange.close(asked.account, symbol)
        except Refusal as refusal:
            answers.append({"symbol": symbol, "status": refusal.status, "body": refusal.body})
        else:
            body = _as_accepted(asked.exchange, listed)
            answers.append({"symbol": symbol, "status": 200, "order_id": listed.id, "body": body})
    return 207, answers


# --- not Alpaca's ---------------------------------------------------------------------------------------------------


def _post_transfer(asked: Asked) -> tuple[int, Any]:
    return 200, asked.exchange.transfer(asked.account, asked.body)


# --- reading what was asked ----------------------------------------------------------------------------------------


def _symbol(asked: Asked, missing: str) -> str:
    """The symbol in the path, or the symbol of the asset id there."""
    given = asked.path["symbol"]
    series = asked.exchange.market.series
    found = given if given in series else next((s for s in series if asset_id(s) == given.lower()), None)
    if found is None:
        raise not_found(f"{missing} {given}")
    return found


def _moment(query: Mapping[str, str], name: str, otherwise: int) -> int:
    text = query.get(name)
    if not text:
        return otherwise
    try:
        return nanoseconds(text)
    except (ValueError, OverflowError):
        raise invalid(f"invalid {name}: expected RFC 3339 or a date, found {text!r}") from None


def _day(query: Mapping[str, str], name: str, otherwise: date) -> date:
    text = query.get(name)
    if not text:
        return otherwise
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        raise invalid(f"invalid {name}: expected a date such as 2024-01-31, found {text!r}") from None


_METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE")

# --- routing -------------------------------------------------------------------------------------------------------

_HANDLERS: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/v2/account", _get_account),
    ("GET", "/v2/account/portfolio/history", _get_history),
    ("GET", "/v2/clock", _get_clock),
    ("GET", "/v2/calendar", _get_calendar),
    ("GET", "/v2/assets", _get_assets),
    ("GET", "/v2/assets/{symbol:path}", _get_asset),
    ("POST", "/v2/orders", _post_order),
    ("GET", "/v2/orders", _get_orders),
    ("DELETE", "/v2/orders", _cancel_orders),
    ("GET", "/v2/orders:by_client_order_id", _get_order_by_client_id),
    ("GET", "/v2/orders/{id}", _get_order),
    ("PATCH", "/v2/orders/{id}", _patch_order),
    ("DELETE", "/v2/orders/{id}", _delete_order),
    ("GET", "/v2/positions", _get_positions),
    ("DELETE", "/v2/positions", _close_positions),
    ("GET", "/v2/positions/{symbol:path}", _get_position),
    ("DELETE", "/v2/positions/{symbol:path}", _close_position),
    ("GET", "/v2/stocks/bars", _get_bars),
    ("GET", "/v2/stocks/bars/latest", _get_latest_bars),
    ("GET", "/v2/stocks/{symbol}/bars", _get_bars_of_one),
    ("POST", "/nextbar/transfer", _post_transfer),
)


def router(exchange: Exchange) -> Router:
    """An ASGI application for the routes; ``scope["client_account"]`` is who asks, and ``scope["limits"]`` headers."""
    by_path: dict[str, dict[str, Handler]] = {}
    for method, path, handler in _HANDLERS:
        by_path.setdefault(path, {})[method] = handler
    routes = [Route(path, _endpoint(exchange, handlers), methods=_METHODS) for path, handlers in by_path.items()]
    return Router(routes, redirect_slashes=False, default=_no_such_route)


def answer(status: int, body: Any, headers: Iterable[tuple[bytes, bytes]] = ()) -> Response:
    """A JSON answer; floats in their shortest text that reads back to the same bits."""
    response = Response(b"" if body is None else json.dumps(body).encode(), status, media_type="application/json")
    response.raw_headers.extend(headers)
    return response


def _endpoint(exchange: Exchange, handlers: Mapping[str, Handler]) -> Callable[[Request], Awaitable[Response]]:
    async def respond(request: Request) -> Response:
        limits = request.scope["limits"]
        try:
            asked = Asked(
                exchange=exchange,
                client=request.scope["client_account"],
                path=request.path_params,
                query=dict(request.query_params),
                body=await _body(request) if request.method in ("POST", "PATCH") else None,
            )
            handler = handlers.get("GET" if request.method == "HEAD" else request.method, _not_allowed)
            status, body = handler(asked)
        except Refusal as refusal:
            status, body = refusal.status, refusal.body
        return answer(status, body, limits)

    return respond


def _not_allowed(asked: Asked) -> tuple[int, Any]:
    raise Refusal(405, 40510000, "method not allowed")


async def _body(request: Request) -> Any:
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > MOST_BYTES_ASKED:
            raise Refusal(413, 41310000, f"a request takes at most {MOST_BYTES_ASKED} bytes")
    try:
        return json.loads(received, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refusal(400, 40010000, "request body format is invalid: expected JSON") from None


def _no_constant(name: str) -> Any:
    raise ValueError(name)


async def _no_such_route(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(404, not_found("endpoint not found.").body, scope["limits"])(scope, receive, send)

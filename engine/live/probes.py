"""What ``nextbar doctor`` asks the broker over REST: each assumption of the live side that a GET can check."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from typing import Any

from engine.checks import Differs, Question, Skipped
from engine.errors import BrokerError
from engine.live.answers import (
    Questioner,
    Subject,
    check_fields,
    is_flag,
    is_id,
    is_moment,
    is_number_text,
    is_text,
)
from engine.live.market_probes import market_questions
from engine.live.rest import FORBIDDEN, NOT_FOUND, UNAUTHORIZED

AREA = "broker"

_SLOW_SECONDS = 1.0
_LEAST_REQUESTS_A_MINUTE = 200
_UNKNOWN = "NEXTBAR.NONE"
_MONEY = ("cash", "equity", "last_equity", "buying_power", "portfolio_value", "multiplier")
_BLOCKS = ("trading_blocked", "account_blocked", "trade_suspended_by_user")
_ACCOUNT = {
    "id": is_id,
    "account_number": is_text,
    "status": is_text,
    **dict.fromkeys(_MONEY, is_number_text),
    **dict.fromkeys(("shorting_enabled", *_BLOCKS), is_flag),
}
_POSITION = {
    "asset_id": is_id,
    **dict.fromkeys(("symbol", "exchange", "asset_class", "side"), is_text),
    **dict.fromkeys(("avg_entry_price", "qty", "cost_basis", "qty_available"), is_number_text),
}
_ORDER = {
    "id": is_id,
    **dict.fromkeys(("client_order_id", "symbol", "side", "type", "time_in_force", "status"), is_text),
    **dict.fromkeys(("created_at", "updated_at", "submitted_at"), is_moment),
    "filled_qty": is_number_text,
    "extended_hours": is_flag,
}
_ASSET_FLAGS = ("tradable", "marginable", "shortable", "easy_to_borrow", "fractionable")
_ASSET = {
    "id": is_id,
    **dict.fromkeys(("class", "exchange", "symbol", "status"), is_text),
    **dict.fromkeys(_ASSET_FLAGS, is_flag),
}


def account_question(broker: Questioner) -> Question:
    """The first question: without its answer no other makes sense."""
    expected = "id, account_number, status; money as text of numbers; flags"
    return Question(name="account", area=AREA, expected=expected, ask=lambda: _account(broker))


def broker_questions(broker: Questioner, subject: Subject) -> list[Question]:
    """All others, in the order in which they are to be asked."""
    asked: list[tuple[str, str, Callable[[], str]]] = [
        ("account status", "ACTIVE, and not blocked", lambda: _account_status(broker)),
        ("endpoint", "a paper account", lambda: _endpoint(broker)),
        ("round trip", f"under {_SLOW_SECONDS:g} s", lambda: _round_trip(broker)),
        ("rate limit", f"X-RateLimit-* headers, {_LEAST_REQUESTS_A_MINUTE} a minute or more", lambda: _limit(broker)),
        ("wrong secret", '401, {"message": ...}', lambda: _wrong_secret(broker)),
        ("positions", "a list of objects with the fields we read", lambda: _positions(broker)),
        ("position not held", "404", lambda: _position_not_held(broker, subject)),
        ("orders", "a list of objects with the fields we read", lambda: _orders(broker, subject)),
        ("unknown order", "404", lambda: _refused(broker, f"/v2/orders/{uuid.uuid4()}")),
        ("unknown client id", "404", lambda: _unknown_client_id(broker)),
        ("unknown symbol", "404", lambda: _refused(broker, f"/v2/assets/{_UNKNOWN}")),
        ("history", "lists timestamp, equity, profit_loss of one length", lambda: _history(broker)),
    ]
    asked += [
        (f"asset {symbol}", "the fields we read, tradable", lambda symbol=symbol: _asset(broker, symbol))  # type: ignore[misc]
        for symbol in subject.symbols
    ]
    own = [Question(name=name, area=AREA, expected=expected, ask=ask) for name, expected, ask in asked]
    return [*own, *market_questions(broker, subject)]


# --- account -------------------------------------------------------------------------------------------------------


def _account(broker: Questioner) -> str:
    answer = broker.get("/v2/account")
    if answer.status in (UNAUTHORIZED, FORBIDDEN):
        raise BrokerError(
            f"the broker refuses the key ({answer.message}); check APCA_API_KEY_ID and APCA_API_SECRET_KEY, which must "
            "be of a paper account"
        )
    row = answer.of(dict)
    check_fields(row, _ACCOUNT)
    return f"{row['status']}, cash {row['cash']}, equity {row['equity']}"


def _account_status(broker: Questioner) -> str:
    row = broker.get("/v2/account").of(dict)
    blocks = [name for name in _BLOCKS if row.get(name)]
    if row.get("status") != "ACTIVE" or blocks:
        raise Differs(", ".join([str(row.get("status")), *blocks]))
    return "ACTIVE, not blocked"


def _endpoint(broker: Questioner) -> str:
    number = str(broker.get("/v2/account").of(dict).get("account_number", ""))
    host = broker.trading_url.partition("://")[2]
    return f"{host}, account {number[:2]}…{number[-2:]}{' (on this machine)' if broker.credentials.local else ''}"


def _round_trip(broker: Questioner) -> str:
    seconds = broker.get("/v2/account", again="1").seconds
    found = f"{seconds * 1e3:.0f} ms"
    if seconds > _SLOW_SECONDS:
        raise Differs(found)
    return found


def _limit(broker: Questioner) -> str:
    headers = broker.get("/v2/account").headers
    names = [f"X-RateLimit-{name}" for name in ("Limit", "Remaining", "Reset")]
    missing = [name for name in names if not str(headers.get(name, "")).isdigit()]
    if missing:
        raise Differs(f"without {', '.join(missing)}")
    limit = int(headers[names[0]])
    if limit < _LEAST_REQUESTS_A_MINUTE:
        raise Differs(f"{limit} a minute")
    if broker.credentials.local:
        return f"{limit:,} a minute; at Alpaca it is {_LEAST_REQUESTS_A_MINUTE}"
    return f"{limit:,} a minute, {int(headers[names[1]]):,} left"


def _wrong_secret(broker: Questioner) -> str:
    answer = broker.get("/v2/account", secret=secrets.token_urlsafe(24))
    if not is_text(answer.of(dict, 401).get("message")):
        raise Differs("401 without a message")
    return answer.message


def _positions(broker: Questioner) -> str:
    rows = broker.get("/v2/positions").of(list)
    for row in rows:
        check_fields(row, _POSITION)
    return f"{len(rows)} held" if rows else "a list; none is held, so no field was seen"


def _orders(broker: Questioner, subject: Subject) -> str:
    symbols = ",".join(subject.symbols)
    rows = broker.get("/v2/orders", status="all", limit=50, nested="true", symbols=symbols).of(list)
    if not rows:
        rows = broker.get("/v2/orders", status="all", limit=50, nested="true").of(list)
    for row in rows:
        check_fields(row, _ORDER)
    return f"the last {len(rows)}" if rows else "a list; there is none, so no field was seen"


def _history(broker: Questioner) -> str:
    row = broker.get("/v2/account/portfolio/history").of(dict)
    lists = [row.get(name) for name in ("timestamp", "equity", "profit_loss")]
    if not all(isinstance(values, list) for values in lists) or len({len(values or ()) for values in lists}) != 1:
        raise Differs(f"the fields {', '.join(sorted(map(str, row)))}")
    return f"{len(lists[0] or ())} points"


def _refused(broker: Questioner, path: str, **query: Any) -> str:
    answer = broker.get(path, **query)
    if answer.status != NOT_FOUND:
        raise Differs(answer.message)
    code = answer.body.get("code") if isinstance(answer.body, dict) else None
    return f"404, code {code}" if code else "404"


def _position_not_held(broker: Questioner, subject: Subject) -> str:
    held = {row.get("symbol") for row in broker.get("/v2/positions").of(list) if isinstance(row, dict)}
    free = [symbol for symbol in subject.symbols if symbol not in held]
    if not free:
        raise Skipped("every symbol is held")
    return _refused(broker, f"/v2/positions/{free[0]}")


def _unknown_client_id(broker: Questioner) -> str:
    return _refused(broker, "/v2/orders:by_client_order_id", client_order_id=f"nextbar-doctor-{uuid.uuid4()}")


def _asset(broker: Questioner, symbol: str) -> str:
    row = broker.get(f"/v2/assets/{symbol}").of(dict)
    check_fields(row, _ASSET)
    if not row["tradable"]:
        raise Differs("it cannot be traded")
    flags = [name for name in _ASSET_FLAGS if row[name]]
    return f"{row['status']}, {', '.join(flags)}"

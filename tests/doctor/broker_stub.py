"""A server that answers GETs as Alpaca does, in real time, and in whatever other way a test wants."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

NEW_YORK = ZoneInfo("America/New_York")
# A Wednesday after the close.
NOW = datetime(2026, 3, 4, 18, 0, tzinfo=NEW_YORK)
SECRET = "a-secret-that-nobody-may-see-0123456789"
KEY = "PKABCDEFGHIJKLMNOP"

ACCOUNT = {
    "id": str(uuid.UUID(int=1)),
    "account_number": "PA3XYZ",
    "status": "ACTIVE",
    **dict.fromkeys(("cash", "equity", "last_equity", "buying_power", "portfolio_value"), "100000"),
    "multiplier": "4",
    "shorting_enabled": True,
    **dict.fromkeys(("trading_blocked", "account_blocked", "trade_suspended_by_user"), False),
}
ASSET = {
    "id": str(uuid.UUID(int=2)),
    "class": "us_equity",
    "exchange": "NASDAQ",
    "symbol": "AAPL",
    "status": "active",
    **dict.fromkeys(("tradable", "marginable", "shortable", "easy_to_borrow", "fractionable"), True),
}
POSITION = {
    "asset_id": str(uuid.UUID(int=2)),
    "symbol": "MSFT",
    "exchange": "NASDAQ",
    "asset_class": "us_equity",
    "side": "long",
    **dict.fromkeys(("avg_entry_price", "qty", "cost_basis", "qty_available"), "1"),
}
ORDER = {
    "id": str(uuid.UUID(int=3)),
    "client_order_id": "one",
    "symbol": "AAPL",
    "side": "buy",
    "type": "market",
    "time_in_force": "day",
    "status": "filled",
    **dict.fromkeys(("created_at", "updated_at", "submitted_at"), "2026-03-04T15:00:00.123456789Z"),
    "filled_qty": "1",
    "extended_hours": False,
}

Query = dict[str, str]


def clock(now: datetime = NOW) -> dict[str, Any]:
    opens = datetime(2026, 3, 5, 9, 30, tzinfo=NEW_YORK)
    return {
        "timestamp": now.isoformat(),
        "is_open": False,
        "next_open": opens.isoformat(),
        "next_close": (opens + timedelta(hours=6.5)).isoformat(),
    }


def calendar(query: Query) -> list[dict[str, str]]:
    day, last = (datetime.fromisoformat(query[name]) for name in ("start", "end"))
    rows = []
    while day <= last:
        if day.weekday() < 5:
            rows.append({"date": f"{day:%Y-%m-%d}", "open": "09:30", "close": "16:00"})
        day += timedelta(days=1)
    return rows


def minute_bars(query: Query, *, stamped_by_end: bool = False) -> dict[str, Any]:
    """The minutes of the last session, or five of them at a time, with prices that walk."""
    step = {"1Min": 1, "5Min": 5}[query["timeframe"]]
    opens = NOW.replace(hour=9, minute=30)
    rows = []
    for begin in range(0, 390, step):
        start = opens + timedelta(minutes=begin + (step if stamped_by_end else 0))
        o, c = 100.0 + begin, 100.5 + begin + step - 1
        stamp = start.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        rows.append({"t": stamp, "o": o, "h": c, "l": o, "c": c, "v": 10, "n": 2, "vw": o})
    rows = [row for row in rows if query["start"] <= str(row["t"]) <= query.get("end", "9")]
    rows.sort(key=lambda row: str(row["t"]), reverse=query.get("sort") == "desc")
    first = int(query.get("page_token", 0))
    limit = int(query.get("limit", 1000))
    token = str(first + limit) if first + limit < len(rows) else None
    return {"bars": {"AAPL": rows[first : first + limit]}, "next_page_token": token}


Route = Callable[[Query], tuple[int, Any]]


class Stub(ThreadingHTTPServer):
    """Answers by path; ``routes`` may be changed. A body that is bytes is sent as it is."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.headers: dict[str, str] = {f"X-RateLimit-{n}": "200" for n in ("Limit", "Remaining", "Reset")}
        self.keys = (KEY, SECRET)
        self.routes: dict[str, Route] = {
            "/v2/account": lambda query: (200, ACCOUNT),
            "/v2/account/portfolio/history": lambda query: (200, {"timestamp": [1], "equity": [1], "profit_loss": [0]}),
            "/v2/clock": lambda query: (200, clock()),
            "/v2/calendar": lambda query: (200, calendar(query)),
            "/v2/positions": lambda query: (200, [POSITION]),
            "/v2/orders": lambda query: (200, [ORDER]),
            "/v2/assets/AAPL": lambda query: (200, ASSET),
            "/v2/stocks/bars": _bars,
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Stub:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


def _bars(query: Query) -> tuple[int, Any]:
    if query["feed"] == "sip":
        return 403, {"message": "subscription does not permit querying recent SIP data"}
    return 200, minute_bars(query)


class _Handler(BaseHTTPRequestHandler):
    server: Stub

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.server.asked.append(f"{self.command} {parts.path}")
        keys = (self.headers["APCA-API-KEY-ID"], self.headers["APCA-API-SECRET-KEY"])
        route = self.server.routes.get(parts.path, lambda query: (404, {"code": 40410000, "message": "not found"}))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        status, body = route(query) if keys == self.server.keys else (401, {"message": "unauthorized."})
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**self.server.headers, "Content-Length": str(len(sent))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, *_: Any) -> None:
        pass

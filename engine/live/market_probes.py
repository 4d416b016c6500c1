"""What ``nextbar doctor`` asks the broker of time and bars: its clock, its calendar, and how it stamps a bar."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from engine.checks import Differs, Question, Skipped
from engine.live.answers import (
    Answer,
    Questioner,
    Subject,
    check_fields,
    is_day,
    is_flag,
    is_moment,
    is_naive_time,
    is_number,
    is_text,
    moment,
)
from engine.live.rest import FORBIDDEN

AREA = "market"

_ZONE = ZoneInfo("America/New_York")
_CLOCK_SECONDS = 2.0
_CLOCK = {"timestamp": is_moment, "is_open": is_flag, "next_open": is_moment, "next_close": is_moment}
_CALENDAR = {"date": is_day, "open": is_naive_time, "close": is_naive_time}
_BAR = {"t": is_moment, **dict.fromkeys(("o", "h", "l", "c", "v", "n", "vw"), is_number)}


def market_questions(broker: Questioner, subject: Subject) -> list[Question]:
    """In the order in which they are to be asked."""
    asked: list[tuple[str, str, Callable[[], str]]] = [
        ("clock", "timestamp, is_open, next_open, next_close", lambda: _clock(broker)),
        ("clock difference", f"{_CLOCK_SECONDS:g} s or less", lambda: _skew(broker)),
        ("calendar", "date, open, close; naive times of New York", lambda: _calendar(broker)),
        (f"bars ({subject.feed})", "t, o, h, l, c, v, n, vw in each", lambda: _bars(broker, subject)),
        ("pages of bars", "next_page_token leads to the next bar", lambda: _pages(broker, subject)),
        ("time of a bar", "t is its start", lambda: _bar_starts(broker, subject)),
        ("recent SIP bars", "given, or 403 with a message", lambda: _recent_sip(broker, subject)),
    ]
    return [Question(name=name, area=AREA, expected=expected, ask=ask) for name, expected, ask in asked]


def what_is_replayed(broker: Questioner) -> tuple[str, str]:
    """A symbol of an exchange on this machine, which lists few, and the timeframe of its bars."""
    rows = broker.get("/v2/assets").of(list)
    if not rows:
        raise Differs("no symbol")
    check_fields(rows[0], {"symbol": is_text})
    symbol = str(rows[0]["symbol"])
    for timeframe in ("1d", "1m"):
        if _page(broker, Subject(symbols=(symbol,), timeframe=timeframe, feed="iex"), limit=1).status == 200:
            return symbol, timeframe
    raise Differs(f"{symbol} in bars of neither a day nor a minute; name the exchange's run file")


# --- time ----------------------------------------------------------------------------------------------------------


def _clock(broker: Questioner) -> str:
    row = broker.get("/v2/clock").of(dict)
    check_fields(row, _CLOCK)
    return f"{'open' if row['is_open'] else 'closed'}; next open {row['next_open']}, next close {row['next_close']}"


def _now(broker: Questioner) -> datetime:
    row = broker.get("/v2/clock").of(dict)
    check_fields(row, _CLOCK)
    return moment(row["timestamp"])


def _skew(broker: Questioner) -> str:
    if broker.credentials.local:
        raise Skipped("an exchange on this machine has a clock of its own")
    off = broker.get("/v2/clock").moment - _now(broker).timestamp()
    found = f"this machine is {off:+.2f} s off the broker"
    if abs(off) > _CLOCK_SECONDS:
        raise Differs(f"{found}; set its clock (by NTP)")
    return found


def _days(broker: Questioner, first: datetime, last: datetime) -> dict[str, tuple[datetime, datetime]]:
    """Open and close of the sessions from one New York day to another, by date."""
    asked: dict[str, Any] = {"start": str(first.astimezone(_ZONE).date()), "end": str(last.astimezone(_ZONE).date())}
    rows = broker.get("/v2/calendar", **asked).of(list)
    for row in rows:
        check_fields(row, _CALENDAR)

    def at(row: dict[str, str], name: str) -> datetime:
        return datetime.fromisoformat(f"{row['date']}T{row[name]}").replace(tzinfo=_ZONE)

    return {row["date"]: (at(row, "open"), at(row, "close")) for row in rows}


def _calendar(broker: Questioner) -> str:
    clock = broker.get("/v2/clock").of(dict)
    check_fields(clock, _CLOCK)
    day = moment(clock["next_open"]).astimezone(_ZONE)
    found = _days(broker, day, day).get(str(day.date()))
    if found is None:
        raise Differs(f"no session on {day:%Y-%m-%d}, on which the clock says that the market opens next")
    if found[0] != day:
        raise Differs(f"{found[0]:%H:%M}, and the clock says {day:%H:%M} in New York")
    return f"{day:%Y-%m-%d} from {found[0]:%H:%M} to {found[1]:%H:%M}, as the clock says"


# --- bars ----------------------------------------------------------------------------------------------------------


def _page(broker: Questioner, subject: Subject, **more: Any) -> Answer:
    asked = {
        "symbols": ",".join(subject.symbols),
        "timeframe": subject.alpaca_timeframe,
        "feed": subject.feed,
        "adjustment": "all",
        **more,
    }
    return broker.get("/v2/stocks/bars", data=True, **asked)


def _recent(broker: Questioner, subject: Subject, **more: Any) -> Answer:
    """The last bars of the first symbol, newest first."""
    back = timedelta(days=7 if subject.timeframe.endswith(("m", "h")) else 60)
    start = f"{(_now(broker) - back).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    first = Subject(symbols=subject.symbols[:1], timeframe=subject.timeframe, feed=subject.feed)
    return _page(broker, first, start=start, sort="desc", **{"limit": 1000, **more})


def _rows(answer: Answer, symbol: str) -> list[dict[str, Any]]:
    body = answer.of(dict)
    bars = body.get("bars")
    rows = bars.get(symbol, []) if isinstance(bars, dict) else None
    if not isinstance(rows, list) or "next_page_token" not in body:
        raise Differs(f"the fields {', '.join(sorted(map(str, body)))}; expected bars by symbol and next_page_token")
    for row in rows:
        check_fields(row, _BAR)
    return rows


def _bars(broker: Questioner, subject: Subject) -> str:
    rows = _rows(_recent(broker, subject), subject.symbols[0])
    if not rows:
        raise Differs(f"no bar of {subject.symbols[0]} in {subject.alpaca_timeframe} of late")
    found = f"{len(rows)} of {subject.symbols[0]} in {subject.alpaca_timeframe}, the newest {rows[0]['t']}"
    return f"{found}; n and vw are made up, unlike Alpaca's" if broker.credentials.local else found


def _pages(broker: Questioner, subject: Subject) -> str:
    symbol = subject.symbols[0]
    everything = _rows(_recent(broker, subject), symbol)
    if len(everything) < 2:
        raise Skipped("there are not two bars")
    first = _recent(broker, subject, limit=1)
    token = first.of(dict).get("next_page_token")
    if len(_rows(first, symbol)) != 1 or not is_text(token):
        raise Differs(f"{len(_rows(first, symbol))} bars and the token {token!r} for a limit of 1")
    second = _rows(_recent(broker, subject, limit=1, page_token=token), symbol)
    if len(second) != 1 or second[0]["t"] >= _rows(first, symbol)[0]["t"]:
        raise Differs("another bar than the next one")
    return "the next bar"


def _bar_starts(broker: Questioner, subject: Subject) -> str:
    rows = _rows(_recent(broker, subject), subject.symbols[0])
    if not rows:
        raise Skipped("there is no bar")
    starts = [moment(row["t"]).astimezone(_ZONE) for row in rows]
    days = _days(broker, starts[-1], starts[0])
    if subject.timeframe == "1d":
        wrong = [start for start in starts if f"{start:%H:%M:%S}" != "00:00:00" or str(start.date()) not in days]
        if wrong:
            raise Differs(f"{wrong[0].isoformat()}; expected midnight in New York, on the day of a session")
        return f"midnight in New York, on the days of {len(starts)} sessions"
    if not subject.timeframe.endswith("m"):
        raise Skipped(f"it cannot be told from bars of {subject.timeframe}")
    if broker.credentials.local:
        inside = [s for s in starts if str(s.date()) in days and days[str(s.date())][0] <= s < days[str(s.date())][1]]
        if len(inside) < len(starts):
            raise Differs(f"{len(starts) - len(inside)} bars begin outside of the session")
        return f"all {len(starts)} begin in a session, none at its close"
    return _joined_minutes(broker, subject, days)


def _joined_minutes(broker: Questioner, subject: Subject, days: dict[str, tuple[datetime, datetime]]) -> str:
    """Five minutes that begin at t are the bar of five minutes at t: only if each is stamped with its start."""
    over = [opened for opened, close in days.values() if close + timedelta(hours=1) < _now(broker)]
    if not over:
        raise Skipped("no session is over yet")
    span = {
        "start": f"{max(over).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "end": f"{(max(over) + timedelta(minutes=59)).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    single, five = (
        _rows(
            _page(broker, Subject(symbols=subject.symbols[:1], timeframe=timeframe, feed=subject.feed), **span),
            subject.symbols[0],
        )
        for timeframe in ("1m", "5m")
    )
    agree = 0
    for bar in five:
        begin = moment(bar["t"])
        parts = [row for row in single if begin <= moment(row["t"]) < begin + timedelta(minutes=5)]
        agree += bool(parts) and parts[0]["o"] == bar["o"] and parts[-1]["c"] == bar["c"]
    if not five:
        raise Skipped(f"no bars of {subject.symbols[0]} in the last session's first hour")
    found = f"{agree} of {len(five)} bars of 5 minutes open and close with the minutes from t on"
    if 2 * agree < len(five):
        raise Differs(found)
    return found


def _recent_sip(broker: Questioner, subject: Subject) -> str:
    start = f"{(_now(broker) - timedelta(minutes=5)).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    asked = Subject(symbols=subject.symbols[:1], timeframe=subject.timeframe, feed="sip")
    answer = _page(broker, asked, start=start)
    if answer.status == 200:
        return "given; this exchange has the same bars for every feed" if broker.credentials.local else "given"
    if answer.status != FORBIDDEN or not isinstance(answer.body, dict) or not is_text(answer.body.get("message")):
        raise Differs(answer.message)
    if subject.feed == "sip":
        raise Differs(f"refused, and data.feed is sip ({answer.message}); set it to iex, or subscribe to it")
    return f"refused: {answer.message}"

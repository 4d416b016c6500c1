"""Alpaca's bars, from a small server on this machine that speaks /v2/stocks/bars."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pandas as pd
import pytest

from engine.config import DataConfig
from engine.credentials import Credentials
from engine.data import alpaca
from engine.data.alpaca import fetch_bars
from engine.data.alpaca_history import AlpacaHistory
from engine.data.sources import load_bars
from engine.data.timeframes import bar_starts, in_session
from engine.errors import BrokerError, ConfigError, DataError
from engine.run_file import load_config

# alpaca-py imports it.
pytestmark = pytest.mark.filterwarnings("ignore:websockets.legacy is deprecated:DeprecationWarning")

# All of the year, so that one range of dates is asked for.
WITHIN = (date(2023, 11, 20), date(2023, 12, 31))

KEY, SECRET = "PKTESTKEY000000003F", "s3cr3ts3cr3ts3cr3ts3cr3t"


class Market:
    """What the server has, how it pages or fails, and what it was asked."""

    def __init__(self) -> None:
        self.bars: dict[str, list[dict[str, Any]]] = {}
        self.page = 1_000
        self.failure: tuple[int, str] | None = None
        self.asked: list[dict[str, str]] = []
        self.keys: set[tuple[str | None, str | None]] = set()

    def add(self, symbol: str, *starts: pd.DatetimeIndex, price: float = 100.0) -> None:
        """Bars that begin at those times, each a cent above the one before it."""
        for start in sorted(start for times in starts for start in times):
            rows = self.bars.setdefault(symbol, [])
            close = price + len(rows) / 100.0
            rows.append({"t": f"{start:%Y-%m-%dT%H:%M:%SZ}", "o": close, "h": close + 1, "l": close - 1, "c": close,
                         "v": 10 * len(rows), "n": 1, "vw": close})  # fmt: skip

    def answer(self, query: dict[str, str]) -> dict[str, Any]:
        start = f"{pd.Timestamp(query['start']):%Y-%m-%dT%H:%M:%SZ}"
        end = f"{pd.Timestamp(query.get('end', '2100-01-01')):%Y-%m-%dT%H:%M:%SZ}"
        down = query.get("sort") == "desc"
        found = [
            (symbol, row)
            for symbol in sorted(query["symbols"].split(","))
            for row in sorted(self.bars.get(symbol, []), key=lambda row: str(row["t"]), reverse=down)
            if start <= row["t"] <= end
        ]
        first = int(query.get("page_token", 0))
        after = first + min(self.page, int(query["limit"]))
        bars: dict[str, list[Any]] = {}
        for symbol, row in found[first:after]:
            bars.setdefault(symbol, []).append(row)
        return {"bars": bars, "next_page_token": str(after) if after < len(found) else None}


@pytest.fixture
def market() -> Iterator[Market]:
    market = Market()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query))
            market.asked.append({"path": url.path, **query})
            market.keys.add((self.headers["APCA-API-KEY-ID"], self.headers["APCA-API-SECRET-KEY"]))
            status, text = market.failure or (200, json.dumps(market.answer(query)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    market.url = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    yield market
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def credentials(market: Market) -> Credentials:
    return Credentials(key=KEY, secret=SECRET, data_url=market.url)  # type: ignore[attr-defined]


@pytest.fixture
def environment(market: Market, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys and endpoint as a user sets them, in a working folder without a .env."""
    monkeypatch.chdir(tmp_path)
    for name, value in (("KEY_ID", KEY), ("SECRET_KEY", SECRET), ("BASE_URL", market.url)):  # type: ignore[attr-defined]
        monkeypatch.setenv(f"APCA_API_{name}", value)


def utc(text: str) -> pd.Timestamp:
    return pd.Timestamp(text, tz="UTC")


def minutes(first: str, last: str) -> pd.DatetimeIndex:
    """Starts of minute bars, by New York's clock, both inclusive."""
    times = pd.date_range(first, last, freq="min", tz="America/New_York")
    return times.tz_convert("UTC")


def section(**settings: Any) -> DataConfig:
    return DataConfig.model_validate(
        {"source": "alpaca", "symbols": ["SPY", "AAPL"], "timeframe": "1m", "start": "2023-11-20"} | settings
    )


# --- which bars -----------------------------------------------------------------------------------------------------


def test_minutes_of_the_regular_session_from_all_pages(market: Market, environment: None, tmp_path: Path) -> None:
    # Wednesday, Thanksgiving, and the half day after it, which closes at 13:00; with early and late trading.
    days = [minutes(f"2023-11-{day} 09:00", f"2023-11-{day} 16:30") for day in (22, 23, 24)]
    for symbol in ("AAPL", "SPY"):
        market.add(symbol, *days)
    market.page = 500
    bars = load_bars(section(), tmp_path, within=WITHIN)

    assert bars.symbols == ("AAPL", "SPY")
    assert (bars.timeframe, bars.adjustment, bars.source) == ("1m", "all", "alpaca")
    for frame in bars.frames.values():
        assert [str(column) for column in frame] == ["open", "high", "low", "close", "volume"]
        assert frame.index.name == "time"
        assert len(frame) == 390 + 210
        # A bar's time is the moment at which it is complete: 9:31 in New York for the first one.
        assert frame.index[[0, 389, 390, -1]].equals(
            pd.DatetimeIndex(["2023-11-22T14:31Z", "2023-11-22T21:00Z", "2023-11-24T14:31Z", "2023-11-24T18:00Z"])
        )
        assert frame["close"].iloc[0] == 100.30
        assert frame["volume"].iloc[0] == 300.0
    assert len(market.asked) == 6  # 2 x 3 x 451 bars, 500 at a time
    assert market.keys == {(KEY, SECRET)}


def test_what_is_asked_for(market: Market, environment: None, tmp_path: Path) -> None:
    for symbol in ("AAPL", "SPY"):
        market.add(symbol, minutes("2023-11-22 10:00", "2023-11-22 14:00")[::60])
    load_bars(section(timeframe="1h"), tmp_path, within=WITHIN)
    assert market.asked == [
        {"path": "/v2/stocks/bars", "symbols": "AAPL,SPY", "timeframe": "1Hour", "start": "2023-11-20T05:00:00+00:00",
         "end": "2024-01-01T04:59:59.999999+00:00", "feed": "iex", "adjustment": "all", "limit": "10000"}
    ]  # fmt: skip
    assert (
        load_bars(section(timeframe="1h", feed="sip", adjustment="raw"), tmp_path, within=WITHIN).adjustment == "none"
    )
    assert (market.asked[1]["feed"], market.asked[1]["adjustment"]) == ("sip", "raw")


def test_of_the_present_day_the_end_is_left_to_alpaca(market: Market, environment: None, tmp_path: Path) -> None:
    # It knows what the account may see of the newest bars. Years of intraday bars are asked for one at a time.
    for symbol in ("AAPL", "SPY"):
        market.add(symbol, minutes("2023-11-22 10:00", "2023-11-22 14:00")[::60])
    load_bars(section(timeframe="1h"), tmp_path)
    assert market.asked[0]["start"].startswith("2023-11-20")
    assert ["end" in asked for asked in market.asked] == [True] * (len(market.asked) - 1) + [False]


def test_a_bar_that_is_not_complete_is_never_taken(market: Market, environment: None, tmp_path: Path) -> None:
    for symbol in ("AAPL", "SPY"):
        market.add(symbol, minutes("2023-11-22 09:30", "2023-11-22 10:00"))
    now = utc("2023-11-22 14:45:59")
    fetched = AlpacaHistory(section(), tmp_path).fetch(["AAPL"], date(2023, 11, 20), None, now=now)
    assert fetched["AAPL"].frame.index[-1] == utc("2023-11-22 14:45")


def test_days_end_with_their_session_and_the_present_one_is_left_out(market: Market, credentials: Credentials) -> None:
    market.add("SPY", *(pd.DatetimeIndex([f"2023-{day}Z"]) for day in ("11-03 04:00", "11-06 05:00", "11-24 05:00")))
    asked: dict[str, Any] = {"start": utc("2023-11-01")}
    days = fetch_bars(credentials, ["SPY"], "1d", **asked)["SPY"]
    assert list(days.index) == [utc("2023-11-03 20:00"), utc("2023-11-06 21:00"), utc("2023-11-24 18:00")]
    days = fetch_bars(credentials, ["SPY"], "1d", **asked, now=utc("2023-11-24 17:59:59"))["SPY"]
    assert list(days.index) == [utc("2023-11-03 20:00"), utc("2023-11-06 21:00")]


@pytest.mark.parametrize(
    ("timeframe", "asked"), [("5m", "5Min"), ("60m", "1Hour"), ("1h", "1Hour"), ("1d", "1Day"), ("1w", "1Week")]
)
def test_timeframes_by_alpacas_names(market: Market, credentials: Credentials, timeframe: str, asked: str) -> None:
    frames = fetch_bars(credentials, ["SPY", "QQQ"], timeframe, start=utc("2023-11-01"))
    assert market.asked[0]["timeframe"] == asked
    for frame in frames.values():
        assert len(frame) == 0
        assert list(frame.columns) == ["open", "high", "low", "close", "volume"]
        assert str(frame.index.dtype) == "datetime64[ns, UTC]"


@pytest.mark.parametrize("timeframe", ["90m", "24h"])
def test_a_timeframe_that_alpaca_has_not(credentials: Credentials, timeframe: str) -> None:
    with pytest.raises(ConfigError, match=f"data.timeframe: Alpaca has bars of 1 to 59 minutes, .* found {timeframe}"):
        fetch_bars(credentials, ["SPY"], timeframe, start=utc("2023-11-01"))


# --- the last so many -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [7, 1_000])
def test_the_last_bars_of_each_symbol_across_the_night(market: Market, credentials: Credentials, page: int) -> None:
    # All day long from 4:00 to 20:00, so that most of what comes last is out of session.
    for symbol, last in (("SPY", "2023-11-27 09:40"), ("QQQ", "2023-11-22 12:00")):
        market.add(symbol, *(minutes(f"2023-11-{day} 04:00", f"2023-11-{day} 19:59") for day in (20, 21)),
                   minutes(f"{last[:10]} 04:00", last))  # fmt: skip
    market.page = page
    frames = fetch_bars(credentials, ["SPY", "QQQ"], "1m", start=None, limit=20)
    assert [str(end)[:16] for end in frames["SPY"].index[[0, 8, 9, -1]]] == [
        "2023-11-21 20:52", "2023-11-21 21:00", "2023-11-27 14:31", "2023-11-27 14:41",
    ]  # fmt: skip
    assert [len(frame) for frame in frames.values()] == [20, 20]
    assert frames["QQQ"].index[-1] == utc("2023-11-22 17:01")


def test_it_goes_on_asking_until_there_are_enough(
    market: Market, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alpaca, "_OUT_OF_SESSION", 0)
    market.add("SPY", *(minutes(f"2023-11-{day} 04:00", f"2023-11-{day} 19:59") for day in (20, 21)))
    whole = fetch_bars(credentials, ["SPY"], "1m", start=utc("2023-11-20"))["SPY"]
    asked = len(market.asked)
    last = fetch_bars(credentials, ["SPY"], "1m", start=None, limit=100)["SPY"]
    pd.testing.assert_frame_equal(last, whole.iloc[-100:], check_exact=True)
    assert len(market.asked) - asked == 2


def test_fewer_than_asked_for_are_all_there_are(market: Market, credentials: Credentials) -> None:
    market.add("SPY", minutes("2023-11-21 09:30", "2023-11-21 09:34"))
    frames = fetch_bars(credentials, ["SPY", "QQQ"], "1m", start=None, limit=10)
    assert [len(frame) for frame in frames.values()] == [5, 0]


def test_the_last_bars_before_an_end_and_not_before_a_start(market: Market, credentials: Credentials) -> None:
    market.add("SPY", minutes("2023-11-21 09:30", "2023-11-21 10:30"))
    between: dict[str, Any] = {"start": utc("2023-11-21 14:40"), "end": utc("2023-11-21 14:50")}
    for limit, first in ((3, "14:48"), (99, "14:41"), (None, "14:41")):
        frame = fetch_bars(credentials, ["SPY"], "1m", limit=limit, **between)["SPY"]
        assert (frame.index[0], frame.index[-1]) == (utc(f"2023-11-21 {first}"), utc("2023-11-21 14:50"))


def test_one_missing_bar_can_be_caught_up_with(market: Market, credentials: Credentials) -> None:
    market.add("SPY", minutes("2023-11-21 09:30", "2023-11-21 10:30"))
    last_seen = utc("2023-11-21 14:40")
    frame = fetch_bars(credentials, ["SPY"], "1m", start=last_seen, end=utc("2023-11-21 14:41"))["SPY"]
    assert list(frame.index) == [utc("2023-11-21 14:41")]
    market.bars["SPY"][10]["c"] = 1e6
    with pytest.raises(DataError, match=r"the close 1000000\.0 is outside of low"):
        fetch_bars(credentials, ["SPY"], "1m", start=last_seen, end=utc("2023-11-21 14:41"))


# --- what the run file lacks or has too much of ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": None}, "data.start: source alpaca needs the first day to fetch; add one, as in start: today-40"),
        ({"path": "bars"}, "data.path: only source: files reads it, found source: alpaca; remove it"),
        ({"stamp": "start"}, "data.stamp: only source: files reads it, found source: alpaca"),
        ({"source": "sample:tech"}, "data.start: only source: alpaca or yahoo reads it, found source: sample:tech"),
        (
            {"source": "files", "start": None, "feed": "iex"},
            "data.feed: only source: alpaca reads it, found source: fi",
        ),
        ({"source": "sample:tech", "start": None, "adjustment": "raw"}, "data.adjustment: sample:tech has one"),
        ({"source": "alpacca"}, r"data.source: unknown source alpacca; did you mean alpaca\?"),
    ],
)
def test_settings_that_do_not_fit_the_source(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load_bars(section(**settings), tmp_path)


def test_without_keys_nothing_is_asked(
    market: Market, environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("APCA_API_KEY_ID")
    monkeypatch.delenv("APCA_API_SECRET_KEY")
    with pytest.raises(BrokerError, match="APCA_API_KEY_ID and APCA_API_SECRET_KEY: missing"):
        load_bars(section(), tmp_path)
    assert market.asked == []


def test_keys_beside_the_run_file(
    market: Market, environment: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / ".env").write_text("APCA_API_KEY_ID=beside\nAPCA_API_SECRET_KEY=it\n")
    monkeypatch.delenv("APCA_API_KEY_ID")
    monkeypatch.delenv("APCA_API_SECRET_KEY")
    (folder / "run.yaml").write_text(
        "name: run\ndata: {source: alpaca, symbols: [SPY], timeframe: 1d, start: today-4}\n"
        'spans: {test: [today-3, today]}\nstrategy: {kind: "strategies.buy_and_hold:BuyAndHold"}\n'
    )
    market.add("SPY", pd.DatetimeIndex(["2023-11-20 05:00Z", "2023-11-21 05:00Z"]))
    config = load_config(folder / "run.yaml", today=pd.Timestamp("2023-11-22").date())
    assert len(load_bars(config.data, config.folder).frames["SPY"]) == 2
    assert market.keys == {("beside", "it")}


@pytest.mark.parametrize("bars", [0, 1])
def test_a_symbol_without_bars_is_named(market: Market, environment: None, tmp_path: Path, bars: int) -> None:
    market.add("AAPL", minutes("2023-11-22 09:30", "2023-11-22 09:40"))
    market.add("SPY", minutes("2023-11-22 09:30", "2023-11-22 09:40")[:bars])
    with pytest.raises(DataError, match=f"alpaca, SPY: at least two bars .* iex feed has {bars or 'none'} of 1m since"):
        load_bars(section(), tmp_path)


# --- how it fails ---------------------------------------------------------------------------------------------------


def complaint(credentials: Credentials, **more: Any) -> str:
    with pytest.raises(BrokerError) as caught:
        fetch_bars(credentials, ["SPY"], "1m", start=utc("2023-11-20"), **more)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET not in message
    assert KEY not in message
    return message


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (
            401,
            "",
            "Alpaca refused the key PK…3F bars of the iex feed (401: no reason given); check APCA_API_KEY_ID and",
        ),
        (401, '{"message": "unauthorized."}', "Alpaca refused the key PK…3F bars of the iex feed (401: unauthorized.)"),
        (403, "<html>\nForbidden</html>", "Alpaca refused the key PK…3F bars of the iex feed (403: <html> Forbidden<"),
        (
            422,
            '{"message": "invalid symbol: S"}',
            "Alpaca refused the request for bars (422: invalid symbol: S); check",
        ),
        (
            429,
            '{"message": "too many requests."}',
            "Alpaca was asked for more than it allows in a minute (429: too many",
        ),
        (500, "[1]", "Alpaca's market data failed (500: [1]); try again later"),
        (504, "", "Alpaca's market data failed (504: no reason given)"),
        (200, "<html>", "answered with what is no JSON"),
        (302, "moved", "answered with what is no JSON"),
        (200, "", "answered with what are no bars"),
        (200, '{"bars": null}', "answered with what are no bars"),
        (200, '{"trouble": 1}', "answered with what are no bars"),
        (200, '{"bars": {"SPY": [{"t": "2023-11-21T14:30:00Z", "o": 1}]}}', "holds what is no bar (KeyError: 'h')"),
        (200, '{"bars": {"SPY": [{"t": "noon"}]}}', "Alpaca's answer for SPY holds what is no bar ("),
        (200, '{"bars": {"SPY": [7]}}', "Alpaca's answer for SPY holds what is no bar ("),
    ],
)
def test_a_refusal_is_one_sentence(
    market: Market, credentials: Credentials, monkeypatch: pytest.MonkeyPatch, status: int, body: str, expected: str
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("alpaca.common.rest.time", SimpleNamespace(sleep=waits.append))
    market.failure = (status, body)
    assert expected in complaint(credentials)
    assert len(waits) == (3 if status in (429, 504) else 0)


def test_a_refused_sip_feed_says_that_iex_is_free(market: Market, credentials: Credentials) -> None:
    market.failure = (403, '{"message": "subscription does not permit querying recent SIP data"}')
    message = complaint(credentials, feed="sip")
    assert "recent SIP data" in message
    assert message.endswith("or set data.feed: iex, which every account may read")


def test_a_mute_server_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca, "TIMEOUTS_SECONDS", (0.1, 0.1))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        assert f"{url} gave no answer in time" in complaint(Credentials(key=KEY, secret=SECRET, data_url=url))


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    assert f"{url} could not be reached (ConnectionError)" in complaint(
        Credentials(key=KEY, secret=SECRET, data_url=url)
    )


def test_no_proxy_stands_before_this_machine(
    market: Market, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    fetch_bars(credentials, ["SPY"], "1m", start=utc("2023-11-20"))
    assert len(market.asked) == 1


def test_a_proxy_may_stand_before_alpaca(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{gone.getsockname()[1]}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert "https://data.alpaca.markets could not be reached (ProxyError)" in complaint(
        Credentials(key=KEY, secret=SECRET)
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("c", 1e6, r"the close 1000000\.0 is outside of low"),
        ("o", 0, "the open must be above zero"),
        ("v", -1, "volume"),
    ],
)
def test_bars_that_cannot_be(market: Market, credentials: Credentials, key: str, value: float, message: str) -> None:
    market.add("SPY", minutes("2023-11-21 09:30", "2023-11-21 09:34"))
    market.bars["SPY"][3][key] = value
    with pytest.raises(DataError, match=rf"^alpaca, SPY, bar 4 \(2023-11-21 14:34 UTC\): .*{message}"):
        fetch_bars(credentials, ["SPY"], "1m", start=utc("2023-11-20"))


def test_no_other_source_imports_the_sdk() -> None:
    code = (
        "import sys; from pathlib import Path; from engine.config import DataConfig; "
        "from engine.data.sources import load_bars; "
        "load_bars(DataConfig(source='sample:tech', symbols=['IBM']), Path()); "
        "assert not {'alpaca', 'requests'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the regular session --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "timeframe", "expected"),
    [
        ("2023-11-22 09:30", "1m", False),
        ("2023-11-22 09:31", "1m", True),
        ("2023-11-22 16:00", "1m", True),
        ("2023-11-22 16:01", "1m", False),
        ("2023-11-23 12:00", "1m", False),  # Thanksgiving
        ("2023-11-24 13:00", "1m", True),  # the half day after it
        ("2023-11-24 13:01", "1m", False),
        ("2023-11-25 12:00", "1m", False),  # a Saturday
        ("2023-11-06 09:31", "1m", True),  # the clocks went back on the day before
        ("2023-11-03 09:31", "1m", True),
        ("2023-11-22 10:00", "1h", False),
        ("2023-11-22 11:00", "1h", True),
        ("2023-11-22 16:00", "1h", True),
        ("2023-11-22 10:00", "30m", True),
        ("2023-11-23 16:00", "1d", True),
    ],
)
def test_in_session(end: str, timeframe: str, expected: bool) -> None:
    ends = pd.DatetimeIndex([pd.Timestamp(end, tz="America/New_York").tz_convert("UTC")])
    assert in_session(ends, timeframe).tolist() == [expected]
    assert in_session(ends[:0], timeframe).tolist() == []


def test_in_session_keeps_every_bar_of_a_year_of_sessions() -> None:
    days = pd.bdate_range("2023-01-01", "2023-12-31")
    whole = pd.concat([pd.Series(minutes(f"{day:%Y-%m-%d} 00:00", f"{day:%Y-%m-%d} 23:59")) for day in days])
    ends = pd.DatetimeIndex(whole) + pd.Timedelta(minutes=1)
    kept = ends[in_session(ends, "1m")]
    assert len(kept) == 248 * 390 + 2 * 210  # 250 sessions, half days on 3 July and 24 November
    assert bar_starts(kept, "1m").tz_convert("America/New_York").time.min().isoformat() == "09:30:00"

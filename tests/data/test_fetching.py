"""Bars of a source on the network by way of the cache, from a source that counts what it is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.cache.fetching import Outcome, read_network, refresh, shelf_of
from engine.data.cache.ranges import Fetched
from engine.data.cache.shelves import ACTIONS, empty_frame
from engine.data.calendars import session_closes, session_hours, sessions_of
from engine.data.patience import patient, seconds_to_wait
from engine.data.raw import Raw
from engine.data.timeframes import bar_starts
from engine.errors import DataError

FIRST, LAST = "2021-11-01", "2022-03-31"


class Fake:
    """A source with a clock that is set by hand; dies after ``lives`` requests."""

    name, variant, adjustment, words = "alpaca", "iex-all", "all", "the iex feed"
    most_symbols = 2

    def __init__(
        self, timeframe: str = "1d", *, symbols: Sequence[str] = ("A", "B", "C"), now: str = "2022-04-01"
    ) -> None:
        self.timeframe = timeframe
        self.lasting = True
        self.clock = pd.Timestamp(now, tz="UTC")
        self.asked: list[tuple[tuple[str, ...], date, date | None]] = []
        self.lives: int | None = None
        self.bars = {symbol: made(timeframe, seed) for seed, symbol in enumerate(symbols)}
        self.actions: dict[str, pd.DataFrame] = {}

    def now(self) -> pd.Timestamp:
        return self.clock

    def fetch(self, symbols: Sequence[str], first: date, last: date | None, *, now: pd.Timestamp) -> dict[str, Fetched]:
        if self.lives is not None:
            self.lives -= 1
            if self.lives < 0:
                raise KeyboardInterrupt
        self.asked.append((tuple(symbols), first, last))
        return {symbol: self._fetched(symbol, first, last) for symbol in symbols}

    def _fetched(self, symbol: str, first: date, last: date | None) -> Fetched:
        frame = self.bars.get(symbol, empty_frame())
        index = pd.DatetimeIndex(frame.index)
        begins = sessions_of(bar_starts(index, self.timeframe) + pd.Timedelta(1))
        # What is not complete is told as well, as some sources do: one bar too many.
        keep = (begins >= pd.Timestamp(first)) & (index <= self.clock + pd.Timedelta(days=1))
        if last is not None:
            keep &= sessions_of(index) <= pd.Timestamp(last)
        actions = self.actions.get(symbol)
        if actions is not None:
            day = sessions_of(pd.DatetimeIndex(actions.index))
            actions = actions[(day >= pd.Timestamp(first)) & (day <= pd.Timestamp(last or "2100-01-01"))]
        return Fetched(frame=frame[keep], actions=actions)


def made(timeframe: str, seed: int) -> pd.DataFrame:
    days = pd.bdate_range(FIRST, LAST)
    opens, closes = session_hours(days)
    opens, closes = opens[~opens.isna()], closes[~closes.isna()]
    if timeframe == "1d":
        times = closes
    elif timeframe in ("1w", "1mo"):
        periods = sessions_of(closes).to_period("W" if timeframe == "1w" else "M")
        times = closes[~periods.duplicated(keep="last")]
    else:
        times = pd.DatetimeIndex(np.concatenate([
            pd.date_range(o + pd.Timedelta(minutes=30), c, freq="30min").as_unit("ns").asi8
            for o, c in zip(opens, closes, strict=True)
        ]), tz="UTC")  # fmt: skip
    values = np.random.default_rng(seed).normal(100, 5, (len(times), 5))
    index = times.as_unit("ns").rename("time")
    return pd.DataFrame(values, index=index, columns=["open", "high", "low", "close", "volume"])


def read(source: Fake, cache: Path | None, start: str, until: str | None, symbols: Sequence[str] = "ABC") -> Raw:
    last = None if until is None else date.fromisoformat(until)
    return read_network(
        source,
        symbols,
        start=date.fromisoformat(start),
        until=last,
        cache=cache,
        now=source.clock if cache is None else None,
    )


def up_to_date(source: Fake, cache: Path, start: str, until: str | None, **more: Any) -> dict[str, Outcome]:
    last = None if until is None else date.fromisoformat(until)
    return refresh(source, "ABC", start=date.fromisoformat(start), until=last, cache=cache, **more)


def check_same(found: Raw, expected: Raw) -> None:
    assert list(found.frames) == list(expected.frames)
    for symbol, frame in expected.frames.items():
        assert found.frames[symbol].index.equals(frame.index)
        assert found.frames[symbol].to_numpy().tobytes() == frame.to_numpy().tobytes()
    assert set(found.actions) == set(expected.actions)
    for symbol, actions in expected.actions.items():
        pd.testing.assert_frame_equal(found.actions[symbol], actions, check_exact=True, check_freq=False)
    assert (found.timeframe, found.adjustment, found.source) == (
        expected.timeframe,
        expected.adjustment,
        expected.source,
    )


def hashes(source: Fake, cache: Path) -> dict[str, str]:
    return {symbol: entry.sha256 for symbol, entry in shelf_of(source, cache).manifest().entries.items()}


# --- the same bars, whatever the cache holds ------------------------------------------------------------------------

DAYS = st.dates(date(2021, 11, 1), date(2022, 3, 31))


@pytest.mark.parametrize("timeframe", ["1d", "1w", "1mo", "30m"])
@given(spans=st.lists(st.tuples(DAYS, DAYS, st.integers(0, 3)), min_size=1, max_size=5))
@settings(max_examples=12, deadline=None)
def test_reading_from_the_cache_equals_reading_fresh(
    tmp_path_factory: pytest.TempPathFactory, timeframe: str, spans: list[tuple[date, date, int]]
) -> None:
    cache, source = tmp_path_factory.mktemp("cache"), Fake(timeframe, now="2021-12-01")
    for start, until, days in spans:
        source.clock += pd.Timedelta(days=10 * days, hours=7)
        asked = (str(start), str(until) if start <= until else None)
        try:
            fresh = read(Fake(timeframe, now=str(source.clock.tz_localize(None))), None, *asked)
        except DataError as error:
            with pytest.raises(DataError, match=re.escape(str(error))):
                read(source, cache, *asked)
        else:
            check_same(read(source, cache, *asked), fresh)


def test_a_span_inside_of_what_is_there_asks_nobody(tmp_path: Path) -> None:
    source = Fake()
    read(source, tmp_path, "2021-12-01", "2022-02-28")
    source.asked.clear()
    source.clock = pd.NaT  # type: ignore[assignment]
    for start, until in (("2021-12-01", "2022-02-28"), ("2022-01-10", "2022-01-20")):
        raw = read(source, tmp_path, start, until)
        days = sessions_of(pd.DatetimeIndex(raw.frames["A"].index))
        assert str(days[0].date()) >= start
        assert str(days[-1].date()) <= until
    assert source.asked == []


def test_the_right_edge_is_extended_with_an_overlap(tmp_path: Path) -> None:
    source = Fake(now="2022-02-01 12:00")
    read(source, tmp_path, "2021-12-01", None)
    source.asked.clear()
    source.clock = pd.Timestamp("2022-02-08 12:00", tz="UTC")
    raw = read(source, tmp_path, "2021-12-01", None)
    # Five sessions up to Monday, 31 January, and on from there.
    assert [(first, last) for _, first, last in source.asked] == [(date(2022, 1, 25), None)] * 2
    check_same(raw, read(source, None, "2021-12-01", None))


def test_an_earlier_start_extends_the_left_edge(tmp_path: Path) -> None:
    source = Fake()
    later = read(source, tmp_path, "2022-01-10", "2022-02-28")
    source.asked.clear()
    earlier = read(source, tmp_path, "2021-12-06", "2022-02-28")
    assert [(first, last) for _, first, last in source.asked] == [(date(2021, 12, 6), date(2022, 1, 14))] * 2
    for symbol, frame in later.frames.items():
        assert earlier.frames[symbol].iloc[-len(frame) :].equals(frame)
    check_same(earlier, read(source, None, "2021-12-06", "2022-02-28"))


@pytest.mark.parametrize("timeframe", ["1d", "30m"])
@pytest.mark.parametrize("edge", ["left", "right"])
def test_a_changed_history_is_noticed_and_fetched_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, edge: str, timeframe: str
) -> None:
    source = Fake(timeframe)
    read(source, tmp_path, "2021-12-10", "2022-02-01")
    source.bars["B"] = source.bars["B"] / 2.0  # a split, which re-adjusts all of it
    start, until = ("2021-12-10", "2022-02-20") if edge == "right" else ("2021-12-01", "2022-02-01")
    outcomes = up_to_date(source, tmp_path, start, until)
    assert [outcome.changed for outcome in outcomes.values()] == [False, True, False]
    assert "alpaca, B: the bars from" in caplog.text
    check_same(read(source, tmp_path, start, until), read(source, None, start, until))


def test_a_revised_bar_within_the_overlap_is_noticed_when_it_is_looked_for(tmp_path: Path) -> None:
    source = Fake()
    read(source, tmp_path, "2021-12-01", "2022-02-01")
    source.bars["A"].loc["2022-01-28", "close"] += 0.01
    assert not any(outcome.fetched for outcome in up_to_date(source, tmp_path, "2021-12-01", "2022-02-01").values())
    outcomes = up_to_date(source, tmp_path, "2021-12-01", "2022-02-01", recheck=True)
    assert [outcome.changed for outcome in outcomes.values()] == [True, False, False]
    check_same(read(source, tmp_path, "2021-12-01", "2022-02-01"), read(source, None, "2021-12-01", "2022-02-01"))


def test_a_dividend_that_is_told_later_is_noticed(tmp_path: Path) -> None:
    source = Fake()
    closes = session_closes(pd.DatetimeIndex(["2022-01-28"])).rename("time")
    source.actions = {symbol: empty_frame(ACTIONS) for symbol in "ABC"}
    read(source, tmp_path, "2021-12-01", "2022-02-01")
    source.actions["C"] = pd.DataFrame({"split": [1.0], "dividend": [0.5]}, index=closes)
    outcomes = up_to_date(source, tmp_path, "2021-12-01", "2022-02-10")
    assert [outcome.changed for outcome in outcomes.values()] == [False, False, True]
    raw = read(source, tmp_path, "2021-12-01", "2022-02-10")
    check_same(raw, read(source, None, "2021-12-01", "2022-02-10"))
    assert [len(actions) for actions in raw.actions.values()] == [0, 0, 1]


def test_bars_of_the_present_day_are_not_relied_on(tmp_path: Path) -> None:
    source = Fake("30m", now="2022-02-01 16:10")  # 11:10 in New York
    raw = read(source, tmp_path, "2022-01-03", None)
    assert raw.frames["A"].index[-1] == pd.Timestamp("2022-02-01 16:00", tz="UTC")
    source.clock = pd.Timestamp("2022-02-01 21:10", tz="UTC")
    source.bars["A"].iloc[source.bars["A"].index.get_loc(raw.frames["A"].index[-1]), 3] += 1.0  # corrected since
    after = read(source, tmp_path, "2022-01-03", None)
    check_same(after, read(source, None, "2022-01-03", None))
    assert not any(outcome.changed for outcome in up_to_date(source, tmp_path, "2022-01-03", None).values())


def test_a_bar_that_is_not_complete_is_never_cached(tmp_path: Path) -> None:
    source = Fake("30m", now="2022-02-01 16:10")
    read(source, tmp_path, "2022-01-03", None)
    found = shelf_of(source, tmp_path).read("ABC")
    assert all(series.frame.index.max() <= source.clock for series in found.values())


# --- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeframe", ["1d", "30m"])
def test_a_fetch_that_died_goes_on_where_it_was(tmp_path: Path, timeframe: str) -> None:
    clean = Fake(timeframe)
    read(clean, tmp_path / "clean", "2021-11-01", "2022-03-01")
    source = Fake(timeframe)
    total = len(clean.asked)
    for lives in range(1, total):
        source.lives = 1
        with pytest.raises(KeyboardInterrupt):
            read(source, tmp_path / "died", "2021-11-01", "2022-03-01")
        assert len(source.asked) >= lives
    source.lives = None
    check_same(
        read(source, tmp_path / "died", "2021-11-01", "2022-03-01"), read(clean, None, "2021-11-01", "2022-03-01")
    )
    assert hashes(source, tmp_path / "died") == hashes(clean, tmp_path / "clean")


def files_of(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock")


def test_whatever_is_damaged_is_fetched_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = Fake("30m")
    expected = read(source, None, "2021-11-01", "2022-03-01")
    read(source, tmp_path, "2021-11-01", "2022-03-01")
    sound = hashes(source, tmp_path)
    for number in range(len(list(files_of(tmp_path)))):
        path = list(files_of(tmp_path))[number]
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 4
        path.write_bytes(whole)
        check_same(read(Fake("30m"), tmp_path, "2021-11-01", "2022-03-01"), expected)
        assert hashes(source, tmp_path) == sound
    assert "count as absent" in caplog.text


def test_who_can_do_without_a_symbol_that_has_no_bars_does_not_ask_for_it_again(tmp_path: Path) -> None:
    """So a universe whose members are not all to be had needs no network the second time."""
    source = Fake(symbols=("A", "B"))
    asked = {"start": date(2021, 12, 1), "until": date(2022, 2, 1), "cache": tmp_path, "everyone": False}
    first = read_network(source, ["A", "B", "GONE"], **asked)
    assert list(first.frames) == ["A", "B"]
    before = len(source.asked)
    assert list(read_network(source, ["A", "B", "GONE"], **asked).frames) == ["A", "B"]
    assert len(source.asked) == before
    read_network(source, ["A", "GONE"], **{**asked, "until": date(2022, 3, 1)})
    assert "GONE" in {symbol for symbols, *_ in source.asked[before:] for symbol in symbols}


def test_a_symbol_without_bars_is_named_and_asked_for_again(tmp_path: Path) -> None:
    source = Fake()
    for _ in range(2):
        with pytest.raises(DataError, match="alpaca, X: at least two bars are needed, and the iex feed has none of 1d"):
            read(source, tmp_path, "2021-12-01", "2022-02-01", "AX")
    source.bars["X"] = made("1d", 9)
    assert len(read(source, tmp_path, "2021-12-01", "2022-02-01", "AX").frames["X"]) > 2


def test_a_source_that_is_not_lasting_is_asked_each_time(tmp_path: Path) -> None:
    # Another exchange on this machine, whose clock stands earlier and whose bars are others.
    source = Fake(now="2022-03-01")
    source.lasting = False
    read(source, tmp_path, "2021-12-01", "2022-02-01")
    other = Fake(symbols=("B", "C", "A"), now="2022-01-20")
    other.lasting = False
    check_same(read(other, tmp_path, "2021-12-01", "2022-02-01"), read(other, None, "2021-12-01", "2022-02-01"))


def test_progress_counts_symbols(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    up_to_date(Fake(), tmp_path, "2021-12-01", "2022-02-01", on_progress=lambda done, total: told.append((done, total)))
    assert told == [(2, 3), (3, 3)]


# --- patience -------------------------------------------------------------------------------------------------------


class Answer:
    def __init__(self, status_code: int, **headers: str) -> None:
        self.status_code = status_code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now, self.slept = now, []  # type: ignore[var-annotated]

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def asked(*answers: Answer) -> tuple[Answer, list[float]]:
    clock, waiting = Clock(), list(answers)
    request = patient(lambda: waiting.pop(0), sleep=clock.sleep, clock=clock)
    answer = request()
    while waiting and answer.status_code == 200:
        answer = request()
    return answer, clock.slept


def test_a_limit_is_waited_for_as_long_as_it_says() -> None:
    ok = Answer(200)
    assert asked(Answer(429, Retry_After="7"), ok) == (ok, [7.0])
    assert asked(Answer(429, X_RateLimit_Reset="1000031"), ok) == (ok, [31.0])
    assert asked(Answer(429), Answer(429), Answer(503), ok) == (ok, [2.0, 4.0, 8.0])
    # The last request of this minute: the next one waits without being refused first.
    assert asked(Answer(200, X_RateLimit_Remaining="0", X_RateLimit_Reset="1000012"), ok) == (ok, [12.0])


def test_patience_has_an_end_and_is_for_limits_only() -> None:
    answer, slept = asked(*[Answer(429, Retry_After="60")] * 20)
    assert (answer.status_code, slept) == (429, [60.0] * 10)
    for status in (400, 401, 403, 500):
        assert asked(Answer(status))[1] == []


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "0"}, 1.0),
        ({"Retry-After": "100000"}, 90.0),
        ({"Retry-After": "Mon, 12 Jan 1970 13:47:10 GMT"}, 30.0),
        ({"Retry-After": "soon"}, 8.0),
        ({"X-RateLimit-Reset": "nan"}, 8.0),
        ({}, 8.0),
    ],
)
def test_seconds_to_wait(headers: dict[str, str], expected: float) -> None:
    assert seconds_to_wait(headers, now=1_000_000.0, waits=3) == expected


def test_yesterday_is_the_last_day_that_has_settled(tmp_path: Path) -> None:
    source = Fake(now="2022-02-02 02:00")  # still 1 February in New York
    read(source, tmp_path, "2022-01-03", None)
    assert shelf_of(source, tmp_path).manifest().entries["A"].asked == (
        date(2022, 1, 3),
        date(2022, 2, 1) - timedelta(1),
    )

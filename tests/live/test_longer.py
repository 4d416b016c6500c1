"""Longer bars of a live run: those that the history's code makes of the broker's minutes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from engine.config import DataConfig
from engine.data.aggregation import aggregate, next_end
from engine.data.samples import load_sample
from engine.data.timeframes import bar_starts
from engine.live.longer import longer_rows
from engine.live.polled import _end_of

MINUTES = load_sample("minutes", ("SYN_CALM", "SYN_THIN")).frames


def alpacas(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Minutes as Alpaca tells them, stamped with their start."""
    stamps = bar_starts(pd.DatetimeIndex(frame.index), "1m")
    rows = frame.to_numpy().tolist()
    return [
        {"t": stamp.isoformat(), "o": o, "h": h, "l": low, "c": c, "v": v, "n": 1, "vw": c}
        for stamp, (o, h, low, c, v) in zip(stamps, rows, strict=True)
    ]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize("timeframe", ["15m", "1h", "1d"])
@pytest.mark.parametrize("symbol", ["SYN_CALM", "SYN_THIN"])
def test_they_are_the_historys(timeframe: str, symbol: str) -> None:
    whole = MINUTES[symbol].loc["2023-11-22":"2023-11-24"]  # a day, a holiday, and a half day
    start, end = at("2023-11-22 05:00"), at("2023-11-24 17:59")
    rows = longer_rows({symbol: alpacas(whole)}, base="1m", timeframe=timeframe, start=start, end=end)[symbol]
    expected = aggregate(whole, timeframe, until=int(pd.Timestamp("2023-11-24 18:00", tz="UTC").value))
    assert [list(row.values())[1:] for row in rows] == expected.to_numpy().tolist()
    assert [pd.Timestamp(row["t"]) for row in rows] == list(bar_starts(pd.DatetimeIndex(expected.index), timeframe))


def test_what_has_lost_its_beginning_or_is_not_over_is_left_out() -> None:
    start, end = at("2023-11-22 14:50"), at("2023-11-22 15:28")
    minutes = MINUTES["SYN_CALM"].loc["2023-11-22 14:51":"2023-11-22 15:29"]
    rows = longer_rows({"A": alpacas(minutes)}, base="1m", timeframe="15m", start=start, end=end)["A"]
    assert [row["t"] for row in rows] == ["2023-11-22T15:00:00+00:00"]  # not that from 14:45, not that from 15:15


def test_minutes_out_of_the_session_and_repeated_ones_do_not_count() -> None:
    minutes = alpacas(MINUTES["SYN_CALM"].loc["2023-11-22 14:31":"2023-11-22 14:45"])
    early = {**minutes[0], "t": "2023-11-22T14:29:00+00:00", "o": 1.0, "l": 0.5}
    start, end = at("2023-11-22 14:00"), at("2023-11-22 14:44")
    asked = {"base": "1m", "timeframe": "15m", "start": start, "end": end}
    expected = longer_rows({"A": minutes}, **asked)["A"]
    assert longer_rows({"A": [early, *minutes, minutes[-1]]}, **asked)["A"] == expected
    assert longer_rows({"A": []}, **asked)["A"] == []


@pytest.mark.parametrize("spoilt", [{"h": 0.01}, {"c": "no"}, {"t": "yesterday"}])
def test_what_is_no_bar_is_an_error_of_the_answer(spoilt: dict[str, Any]) -> None:
    minutes = alpacas(MINUTES["SYN_CALM"].loc["2023-11-22 14:31":"2023-11-22 14:45"])
    with pytest.raises(ValueError, match=r"."):
        longer_rows(
            {"A": [{**minutes[0], **spoilt}]},
            base="1m", timeframe="15m", start=at("2023-11-22 14:00"), end=at("2023-11-22 14:44"),
        )  # fmt: skip


def test_hours_made_of_minutes_are_due_by_the_open_and_alpacas_by_the_clock() -> None:
    after = int(pd.Timestamp("2023-11-22 15:00", tz="UTC").value)
    data = DataConfig(source="sample:minutes", symbols=("SYN_CALM",), timeframe="1h")
    assert pd.Timestamp(next_end(after, data)).strftime("%H:%M") == "16:00"
    made = data.model_copy(update={"base": "1m", "path": Path()})
    assert pd.Timestamp(next_end(after, made)).strftime("%H:%M") == "15:30"


def test_a_week_is_over_with_its_last_day_and_not_before() -> None:
    days = load_sample("tech", ("IBM",)).frames["IBM"].loc["2012-11-05":"2012-11-09"]
    stamps = bar_starts(pd.DatetimeIndex(days.index), "1d")
    rows = [
        {"t": stamp.isoformat(), "o": o, "h": h, "l": low, "c": c, "v": v}
        for stamp, (o, h, low, c, v) in zip(stamps, days.to_numpy().tolist(), strict=True)
    ]
    asked = {"base": "1d", "timeframe": "1w", "start": at("2012-11-01 00:00")}
    assert longer_rows({"A": rows[:4]}, end=at("2012-11-08 21:00"), **asked)["A"] == []
    (week,) = longer_rows({"A": rows}, end=at("2012-11-09 21:00"), **asked)["A"]
    assert week["v"] == days["volume"].sum()


@pytest.mark.parametrize("made", [True, False])
def test_a_made_bar_that_the_close_cuts_off_is_not_taken_for_early_trading(made: bool) -> None:
    """Four hours of a half day are stamped as if they had not been cut: with a moment before the open."""
    close = pd.DatetimeIndex(["2023-11-24 18:00"], tz="UTC").as_unit("ns")
    stamp = int(bar_starts(close, "4h").asi8[0])
    assert _end_of(stamp, "4h", made=made) == (int(close.asi8[0]) if made else None)

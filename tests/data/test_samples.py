"""The built-in samples: what they hold, and that they are the same every time."""

import numpy as np
import pandas as pd
import pytest

from engine.data import samples
from engine.data.bars import Bars
from engine.data.calendars import session_closes, sessions_of
from engine.data.samples import SAMPLES, load_sample
from engine.data.timeframes import bar_ends, bar_starts
from engine.data.validation import validated
from engine.errors import DataError

# numpy has no time zones and says so when the content hash strips them.

HALF_DAY = pd.Timestamp("2023-11-24")
PINNED_FIRST = [119.52, 119.54, 119.5, 119.54, 65305.0]
PINNED_LAST = [128.83, 128.84, 128.83, 128.84, 82609.0]
PINNED_HASH = "ed42311be183d29ae792af7b8adb37fbfb7529df73b621048e5b971c0ec14eb1"


@pytest.fixture(scope="module")
def tech() -> Bars:
    return load_sample("tech", ("AAPL", "GOOG", "IBM", "MSFT"))


@pytest.fixture(scope="module")
def minutes() -> Bars:
    return load_sample("minutes", SAMPLES["minutes"].symbols)


def digest(name: str) -> str:
    return load_sample(name, SAMPLES[name].symbols).content_hash


@pytest.mark.parametrize("name", list(SAMPLES))
def test_every_sample_is_valid_complete_and_labelled(name: str):
    bars = load_sample(name, tuple(reversed(SAMPLES[name].symbols)))
    assert bars.symbols == SAMPLES[name].symbols == tuple(sorted(bars.symbols))
    assert bars.source == f"sample:{name}"
    for symbol, frame in bars.frames.items():
        assert validated(frame, symbol=symbol, origin=name).equals(frame)
        if bars.timeframe == "1d":
            sessions = sessions_of(frame.index)
            assert session_closes(sessions).equals(frame.index.rename(None))
    labels = {s: (b.close_only, b.synthetic, b.survivor_biased, b.adjustment) for s, b in SAMPLES.items()}
    assert labels[name] == (bars.close_only, bars.synthetic, bars.survivor_biased, bars.adjustment)


def test_tech_is_real_prices_without_jumps_at_splits(tech: Bars):
    apple = tech.frames["AAPL"]
    assert (len(apple), len(tech.frames["GOOG"])) == (3270, 2148)
    assert (apple.index[0], apple.index[-1]) == (
        pd.Timestamp("2000-03-01 21:00", tz="UTC"),
        pd.Timestamp("2013-03-01 21:00", tz="UTC"),
    )
    # Apple split two for one on 28 February 2005: 88.99 on the 25th, 44.86 on the 28th.
    week = apple.loc["2005-02-25":"2005-02-28", "close"]
    assert week.iloc[1] / week.iloc[0] == pytest.approx(2 * 44.86 / 88.99, abs=2e-4)
    assert np.log(apple["close"]).diff().min() == pytest.approx(-0.7312, abs=1e-3)  # 29 September 2000, and no split


def test_tech_keeps_the_money_that_changed_hands(tech: Bars):
    first = tech.frames["AAPL"].iloc[0]
    assert first["close"] == pytest.approx(4.186663, abs=1e-6)
    assert first["close"] * first["volume"] == pytest.approx(130.31 * 9_616_100)


def test_tech_is_adjusted_and_says_that_its_companies_survived(tech: Bars):
    assert (tech.adjustment, tech.survivor_biased, tech.synthetic, tech.close_only) == ("all", True, False, False)


def test_large20_is_closes_only_and_labelled_so():
    bars = load_sample("large20", SAMPLES["large20"].symbols)
    assert len(bars.symbols) == 20
    assert bars.close_only
    assert bars.survivor_biased
    for frame in bars.frames.values():
        assert len(frame) == 8313
        assert (frame[["open", "high", "low"]].to_numpy() == frame[["close"]].to_numpy()).all()
        assert (frame["volume"] == 0.0).all()
    assert bars.frames["AAPL"]["close"].iloc[0] == 0.264


def test_sp500_is_the_index():
    frame = load_sample("sp500", ("SP500",)).frames["SP500"]
    assert frame["close"].iloc[0] == 1228.099976
    assert (len(frame), f"{frame.index[0]:%Y-%m-%d}", f"{frame.index[-1]:%Y-%m-%d}") == (
        5031,
        "1999-01-04",
        "2018-12-31",
    )


def test_synthetic_minutes_are_labelled_and_no_real_tickers(minutes: Bars):
    assert minutes.synthetic
    assert minutes.timeframe == "1m"
    assert all("_" in symbol for symbol in minutes.symbols)


def test_synthetic_minutes_are_the_same_bytes_on_every_machine(minutes: Bars):
    values = np.concatenate([frame.to_numpy().ravel() for frame in minutes.frames.values()])
    assert len(values) == 5 * (7607 + 4665 + 2798 + 7547)
    calm = minutes.frames["SYN_CALM"]
    assert calm.iloc[0].tolist() == PINNED_FIRST
    assert calm.iloc[-1].tolist() == PINNED_LAST
    assert minutes.content_hash == PINNED_HASH


def test_a_synthetic_symbol_does_not_depend_on_the_others(minutes: Bars):
    alone = load_sample("minutes", ("SYN_THIN",))
    pd.testing.assert_frame_equal(alone.frames["SYN_THIN"], minutes.frames["SYN_THIN"], check_exact=True)


def test_synthetic_sessions_are_real_ones_with_a_half_day_and_a_change_of_clocks(minutes: Bars):
    calm = minutes.frames["SYN_CALM"]
    sessions = sessions_of(calm.index)
    assert len(sessions.unique()) == 20
    assert pd.Timestamp("2023-11-23") not in sessions
    session_closes(sessions.unique())  # each is one
    assert (calm.index <= session_closes(sessions)).all()
    first = calm.index[~sessions.duplicated()].tz_convert("America/New_York")
    assert {f"{time:%H:%M}" for time in first} == {"09:31"}
    assert {f"{time:%H:%M}" for time in first.tz_convert("UTC")} == {"13:31", "14:31"}
    last = calm.index[~sessions.duplicated(keep="last")].tz_convert("America/New_York")
    assert last[sessions.unique() == HALF_DAY].strftime("%H:%M").tolist() == ["13:00"]
    assert (sessions == HALF_DAY).sum() <= 210


def test_synthetic_gaps_and_the_late_listing(minutes: Bars):
    every_minute = 19 * 390 + 210
    assert every_minute - 30 < len(minutes.frames["SYN_CALM"]) < every_minute
    assert 0.3 < len(minutes.frames["SYN_THIN"]) / every_minute < 0.4
    listed = minutes.frames["SYN_LATE"].index[0].tz_convert("America/New_York")
    assert f"{listed:%Y-%m-%d %H:%M}" == "2023-11-10 10:46"


def test_synthetic_volume_is_busier_at_the_open_and_close(minutes: Bars):
    calm = minutes.frames["SYN_CALM"]
    by_minute = calm["volume"].groupby(calm.index.tz_convert("America/New_York").strftime("%H:%M")).mean()
    assert by_minute["09:35"] > 2 * by_minute["12:45"] < by_minute["15:55"]


@pytest.mark.parametrize("name", ["tech", "minutes"])
def test_the_content_hash_is_the_same_at_every_load(name: str):
    assert digest(name) == digest(name)


def test_the_content_hash_differs_on_any_change(tech: Bars):
    frames = dict(tech.frames)
    seen = {tech.content_hash}

    def changed(**changes: object) -> str:
        values = {"frames": frames, "timeframe": "1d", "adjustment": "all", "source": "elsewhere"} | changes
        return Bars(**values).content_hash

    assert changed() in seen  # the source's name is not content
    apple = frames["AAPL"]
    for column in apple.columns:
        nudged = apple.copy()
        nudged.loc[nudged.index[1000], column] = np.nextafter(nudged[column].iloc[1000], np.inf)
        seen.add(changed(frames=frames | {"AAPL": nudged}))
    seen.add(changed(frames=frames | {"AAPL": apple.iloc[:-1]}))
    seen.add(changed(frames=frames | {"AAPL": apple.set_axis(apple.index + pd.Timedelta(1, unit="s"))}))
    seen.add(changed(frames={("APPL" if s == "AAPL" else s): f for s, f in frames.items()}))
    seen.add(changed(timeframe="1w"))
    seen.add(changed(adjustment="none"))
    seen.add(changed(close_only=True))
    assert len(seen) == 1 + 5 + 3 + 3


def test_a_missing_package_is_named():
    with pytest.raises(DataError, match=r"the package no_such_package, .* is not installed; run pip install"):
        samples._packaged("no_such_package", "prices.csv")
    with pytest.raises(DataError, match=r"the package arch holds no readable data/no.csv"):
        samples._packaged("arch", "data/no.csv")


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_start_that_alpaca_stamps_a_bar_with_tells_its_end(name: str) -> None:
    bars = load_sample(name, SAMPLES[name].symbols)
    for frame in bars.frames.values():
        ends = pd.DatetimeIndex(frame.index)
        starts = bar_starts(ends, bars.timeframe)
        assert (starts < ends).all()
        assert bar_ends(starts, bars.timeframe).equals(ends.rename(None))


def test_a_weeks_bar_starts_on_its_monday_and_ends_with_its_last_session() -> None:
    good_friday = pd.DatetimeIndex(["2024-03-28 20:00"], tz="UTC").as_unit("ns")
    starts = bar_starts(good_friday, "1w")
    assert starts.tz_convert("America/New_York").strftime("%a %F %H:%M").tolist() == ["Mon 2024-03-25 00:00"]
    assert bar_ends(starts, "1w").equals(good_friday)

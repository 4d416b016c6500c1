"""Bars that lack values or contradict themselves."""

import numpy as np
import pytest
from cleaning_bars import changed, cleaned, days, found

from engine.data.bars import COLUMNS
from engine.errors import DataError

NAN = float("nan")
ROWS = {"rows": {"ACME": np.arange(2, 122)}, "origins": {"ACME": "acme.csv"}}


@pytest.mark.parametrize("column", COLUMNS)
def test_a_bar_without_a_value_is_dropped(column: str):
    frame = days()
    frames, quality = cleaned(changed(frame, 7, **{column: NAN}))
    assert list(frames["ACME"].index) == list(frame.index.delete(7))
    (finding,) = found(quality, "missing_value")
    assert (finding.count, finding.action, finding.time) == (1, "dropped", frame.index[7])
    assert finding.detail == f"1 bar without {column}"
    assert set(quality.repairs["rule"]) == {"missing_value: drop"}


def test_what_is_missing_is_completed_from_its_own_bar_alone():
    frame = days()
    bar = frame.iloc[7]
    holed = changed(changed(frame, 7, open=NAN, high=NAN, low=NAN, volume=NAN), 9, open=NAN)
    frames, quality = cleaned(holed, missing_value="repair")
    assert frames["ACME"].iloc[7].tolist() == [bar["close"]] * 4 + [0.0]
    expected = [frame.iloc[9]["close"], *frame.iloc[9].tolist()[1:]]
    assert frames["ACME"].iloc[9].tolist() == expected
    repairs = quality.repairs
    assert list(repairs["column"]) == ["open", "high", "low", "volume", "open"]
    assert list(repairs["after"]) == [bar["close"]] * 3 + [0.0, frame.iloc[9]["close"]]
    assert repairs["before"].isna().all()
    assert found(quality, "missing_value")[0].action == "repaired"


def test_without_a_close_there_is_nothing_to_complete():
    frame = days()
    frames, quality = cleaned(changed(frame, 7, close=NAN), missing_value="repair")
    assert len(frames["ACME"]) == len(frame) - 1
    assert found(quality, "missing_value")[0].action == "dropped"


def test_a_completed_bar_may_still_be_impossible():
    frame = changed(days(), 7, open=NAN, close=500.0)
    frames, quality = cleaned(frame, missing_value="repair")
    assert len(frames["ACME"]) == len(frame) - 1
    assert dict(quality.counts()) == {"missing_value": 1, "impossible": 1}
    frames, _ = cleaned(frame, missing_value="repair", impossible="repair")
    assert frames["ACME"].iloc[7]["high"] == 500.0


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"close": NAN}, "the close is missing"),
        ({"open": NAN, "high": NAN}, "the open and the high are missing"),
    ],
)
def test_a_missing_value_is_refused_by_its_row(values: dict[str, float], sentence: str):
    message = rf"acme.csv, ACME, row 9 \(2023-01-12 21:00 UTC\): {sentence}; .* set data.cleaning.missing_value: drop"
    with pytest.raises(DataError, match=message):
        cleaned(changed(days(), 7, **values), raw=ROWS, missing_value="refuse")


IMPOSSIBLE = [
    ({"high": 50.0}, "the high 50.0 is below the low"),
    ({"open": 500.0}, "the open 500.0 is outside of low"),
    ({"close": 10.0}, "the close 10.0 is outside of low"),
    ({"low": 0.0}, "the low must be above zero, found 0.0"),
    ({"close": -3.0}, "the close must be above zero, found -3.0"),
    ({"high": np.inf}, "the high is infinite"),
    ({"volume": -1.0}, "the volume must not be negative, found -1.0"),
    ({"volume": np.inf}, "the volume is infinite"),
]


@pytest.mark.parametrize(("values", "sentence"), IMPOSSIBLE)
def test_an_impossible_bar_is_dropped_or_refused(values: dict[str, float], sentence: str):
    frame = days()
    frames, quality = cleaned(changed(frame, 7, **values))
    assert list(frames["ACME"].index) == list(frame.index.delete(7))
    (finding,) = found(quality, "impossible")
    assert (finding.count, finding.action, finding.time) == (1, "dropped", frame.index[7])
    assert sentence in finding.detail
    message = rf"acme.csv, ACME, row 9 \(2023-01-12 21:00 UTC\): {sentence}.* set data.cleaning.impossible: drop"
    with pytest.raises(DataError, match=message):
        cleaned(changed(frame, 7, **values), raw=ROWS, impossible="refuse")


@pytest.mark.parametrize(("values", "sentence"), IMPOSSIBLE)
def test_high_and_low_are_widened_where_all_prices_are_sound(values: dict[str, float], sentence: str):
    frame = changed(days(), 7, **values)
    frames, quality = cleaned(frame, impossible="repair")
    prices = frame.iloc[7].tolist()[:4]
    if min(prices) <= 0.0 or max(prices) == np.inf or "volume" in values:
        assert len(frames["ACME"]) == len(frame) - 1
        assert found(quality, "impossible")[0].action == "dropped"
        return
    bar = frames["ACME"].iloc[7]
    assert (bar["high"], bar["low"]) == (max(prices), min(prices))
    assert (bar["open"], bar["close"]) == (frame.iloc[7]["open"], frame.iloc[7]["close"])
    assert set(quality.repairs["rule"]) == {"impossible: repair"}
    assert set(quality.repairs["column"]) <= {"high", "low"}


def test_rounding_of_adjusted_prices_costs_no_bar():
    frame = days()
    high = float(np.nextafter(frame["close"].iloc[7], 0.0))
    tight = changed(frame, 7, open=high, low=high * 0.99, high=high)
    frames, quality = cleaned(tight)
    assert frames["ACME"].iloc[7]["high"] == frame["close"].iloc[7]
    assert len(frames["ACME"]) == len(frame)
    assert quality.repairs[["column", "before", "after", "rule"]].to_numpy().tolist() == [
        ["high", high, frame["close"].iloc[7], "impossible: rounding"]
    ]
    assert found(quality, "impossible")[0].action == "repaired"
    with pytest.raises(DataError, match="impossible: drop"):
        cleaned(tight, impossible="refuse")


def test_the_worst_of_several_is_told():
    frame = changed(changed(days(), 7, close=500.0), 9, close=105.0, open=104.0, high=104.5, low=103.0)
    (finding,) = found(cleaned(frame)[1], "impossible")
    assert finding.count == 2
    assert finding.size > 3.0
    assert "of the worst one the close 500.0" in finding.detail


def test_so_many_bad_bars_are_no_faults_of_bars():
    frame = days()
    swapped = frame.rename(columns={"high": "low", "low": "high"})[list(COLUMNS)]
    message = r"row 2 .*the high .* is below the low .*, and 120 of 120 bars cannot be bars; the columns are probably"
    with pytest.raises(DataError, match=message):
        cleaned(swapped, raw=ROWS)
    frames, _ = cleaned(swapped, impossible="repair")
    assert len(frames["ACME"]) == len(frame)
    empty = frame.assign(volume=NAN)
    with pytest.raises(DataError, match=r"the volume is missing, and 120 of 120 bars cannot be bars"):
        cleaned(empty)
    frames, _ = cleaned(empty, missing_value="repair")
    assert (frames["ACME"]["volume"] == 0.0).all()


def test_a_few_bad_bars_of_a_short_file_are_faults_of_bars():
    frame = days(8)
    for bar in (2, 4, 5):
        frame = changed(frame, bar, close=NAN)
    assert len(cleaned(frame)[0]["ACME"]) == 5

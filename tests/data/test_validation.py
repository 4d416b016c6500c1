"""A frame is valid, or a DataError says where it is not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.bars import COLUMNS
from engine.data.validation import validated
from engine.errors import DataError


def good(count: int = 5) -> pd.DataFrame:
    close = 100.0 + np.arange(count)
    return pd.DataFrame(
        {"open": close - 0.5, "high": close + 1.0, "low": close - 1.0, "close": close, "volume": 1000.0},
        index=pd.date_range("2024-03-04 21:00", periods=count, freq="D", tz="UTC"),
    )


def check(frame: pd.DataFrame, rows: list[int] | None = None) -> pd.DataFrame:
    return validated(frame, symbol="ACME", origin="prices.csv", rows=rows)


def with_value(column: str, value: object, position: int = 2) -> pd.DataFrame:
    frame = good()
    if not isinstance(value, float):
        frame[column] = frame[column].astype(object)
    frame.loc[frame.index[position], column] = value
    return frame


def test_a_good_frame_becomes_canonical_and_keeps_its_values():
    frame = good()
    messy = frame[list(reversed(COLUMNS))].assign(note="x", volume=[1000] * 5)
    messy.index = messy.index.tz_convert("America/New_York").as_unit("s")
    found = check(messy)
    assert tuple(found.columns) == COLUMNS
    assert set(map(str, found.dtypes)) == {"float64"}
    assert str(found.index.dtype) == "datetime64[ns, UTC]"
    assert found.index.name == "time"
    np.testing.assert_array_equal(found.to_numpy(), frame.to_numpy())
    assert (found.index == frame.index).all()


def test_the_frame_given_stays_as_it_was():
    frame = good()
    before = frame.copy(deep=True)
    found = check(frame)
    found.iloc[0, 0] = 1.0
    pd.testing.assert_frame_equal(frame, before)


def test_numbers_written_as_text_are_numbers():
    assert check(with_value("close", "102.5"))["close"].iloc[2] == 102.5


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("open", np.nan, "the open is missing"),
        ("volume", None, "the volume is missing"),
        ("high", np.inf, "the high is infinite"),
        ("volume", np.inf, "the volume is infinite"),
        ("close", -3.0, "the close must be above zero, found -3.0"),
        ("low", 0.0, "the low must be above zero, found 0.0"),
        ("volume", -1.0, "the volume must not be negative, found -1.0"),
        ("close", "abc", "the close is not a number, found 'abc'"),
        ("close", "1,020.5", "the close is not a number"),
        ("high", 100.5, "the high 100.5 is below the low 101.0"),
        ("open", 200.0, r"the open 200.0 is outside of low 101.0 to high 103.0"),
        ("close", 100.0, r"the close 100.0 is outside of low 101.0 to high 103.0"),
    ],
)
def test_a_bad_value_is_named_with_its_row(column: str, value: object, message: str):
    place = r"prices.csv, ACME, row 9 \(2024-03-06 21:00 UTC\): "
    with pytest.raises(DataError, match=f"{place}{message}.*; correct or remove the row"):
        check(with_value(column, value), rows=[2, 4, 9, 11, 12])


def test_without_a_file_the_bar_is_counted():
    with pytest.raises(DataError, match=r"ACME, bar 3 \(2024-03-06 21:00 UTC\): the open is missing"):
        check(with_value("open", np.nan))


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_bars_are_refused(count: int):
    with pytest.raises(DataError, match=f"at least two bars are needed, found {count}"):
        check(good(count))


def test_missing_and_repeated_columns_are_named():
    with pytest.raises(DataError, match="no column for low, volume; found open, high, close"):
        check(good().drop(columns=["low", "volume"]))
    with pytest.raises(DataError, match=r"no column for .*; found no columns"):
        check(pd.DataFrame(index=good().index))
    doubled = pd.concat([good(), good()[["close"]]], axis=1)
    with pytest.raises(DataError, match="more than one column for close"):
        check(doubled)


def test_times_must_increase():
    frame = good()
    with pytest.raises(DataError, match=r"row 4 .*: earlier than the bar before it"):
        check(frame.iloc[[0, 2, 1, 3]], rows=[2, 3, 4, 5])
    with pytest.raises(DataError, match=r"row 4 .*: the same time as the bar before it"):
        check(frame.iloc[[0, 1, 1, 3]], rows=[2, 3, 4, 5])


def test_times_must_be_times_with_a_zone():
    frame = good()
    with pytest.raises(DataError, match=r"times without a zone; .* data.timezone"):
        check(frame.tz_localize(None))
    with pytest.raises(DataError, match="indexed by time"):
        check(frame.reset_index(drop=True))
    holed = frame.set_axis(frame.index[:4].append(pd.DatetimeIndex([pd.NaT], tz="UTC")))
    with pytest.raises(DataError, match="bar 5: the time is missing"):
        check(holed)
    far = frame.set_axis(pd.DatetimeIndex([f"{year}-01-01" for year in range(3000, 3005)], tz="UTC").as_unit("s"))
    with pytest.raises(DataError, match="beyond the years 1678 to 2261"):
        check(far)


def test_other_kinds_of_columns_are_not_numbers():
    for values in ([True] * 5, list(good().index), [1j] * 5, [[1]] * 5, pd.Categorical(["1"] * 5)):
        with pytest.raises(DataError, match="the close is not a number"):
            check(good().assign(close=values))


ODD = st.one_of(
    st.floats(),
    st.floats(min_value=90.0, max_value=110.0),
    st.integers(-(10**30), 10**30),
    st.text(max_size=4),
    st.sampled_from([None, pd.NaT, pd.NA, True, "nan", "inf", "1e5", "{open}", b"1", (1,), pd.Timestamp("2024-01-01")]),
)


@settings(max_examples=250, deadline=None)
@given(data=st.data())
def test_a_mangled_frame_is_valid_or_a_data_error(data: st.DataObject):
    frame = good(data.draw(st.integers(0, 6)))
    for _ in range(data.draw(st.integers(0, 3))):
        column = data.draw(st.sampled_from(COLUMNS))
        if column in frame and len(frame):
            values = frame[column].astype(object).tolist()
            values[data.draw(st.integers(0, len(frame) - 1))] = data.draw(ODD)
            frame[column] = pd.Series(values, index=frame.index, dtype=data.draw(st.sampled_from([object, None])))
    keep = (
        data.draw(st.lists(st.sampled_from([*COLUMNS, *COLUMNS, "open"]), max_size=7))
        if data.draw(st.integers(0, 4)) == 0
        else list(COLUMNS)
    )
    frame = frame[keep]
    if len(frame):
        positions = st.lists(st.integers(0, len(frame) - 1), max_size=8)
        frame = frame.iloc[data.draw(st.one_of(st.just(list(range(len(frame)))), positions))]
    zone = data.draw(st.sampled_from(["UTC", "America/New_York", None]))
    frame = (
        frame.tz_convert(zone)
        if zone
        else data.draw(st.sampled_from([frame, frame.tz_localize(None), frame.reset_index(drop=True)]))
    )
    try:
        found = check(frame)
    except DataError:
        return
    assert tuple(found.columns) == COLUMNS
    values = found.to_numpy()
    assert values.dtype == np.float64
    assert np.isfinite(values).all()
    assert (found[["open", "high", "low", "close"]] > 0).all(axis=None)
    assert (found["volume"] >= 0).all()
    assert (found["low"] <= found[["open", "close"]].min(axis=1)).all()
    assert (found["high"] >= found[["open", "close"]].max(axis=1)).all()
    assert found.index.is_monotonic_increasing
    assert found.index.is_unique
    assert len(found) == len(frame) >= 2
    assert check(found).equals(found)

"""History over REST: never ahead of the clock, paged symbol by symbol, exact."""

from __future__ import annotations

from typing import Any

import pytest

from engine.data.samples import load_sample
from tests.exchange.floor import Floor, days, flat, minutes

ONE_MINUTE = {"timeframe": "1Min"}


def bars(floor: Floor, **query: Any) -> dict[str, list[dict[str, Any]]]:
    shown: dict[str, list[dict[str, Any]]] = floor.get("/v2/stocks/bars", **{**ONE_MINUTE, **query})["bars"]
    return shown


def test_nothing_is_shown_before_it_is_complete() -> None:
    prices = [flat(100.0 + n) for n in range(4)]
    with Floor(minutes({"X": prices, "Y": [None, None, flat(7.0), flat(8.0)]})) as floor:
        for seen in range(1, 5):
            assert [bar["c"] for bar in bars(floor, symbols="X")["X"]] == [100.0 + n for n in range(seen)]
            assert floor.get("/v2/stocks/bars/latest", symbols="X")["bars"]["X"]["c"] == 99.0 + seen
            future = bars(floor, symbols="X", start="2024-01-02T14:29:00Z", end="2030-01-01")
            assert len(future["X"]) == seen
            assert ("Y" in bars(floor, symbols="X,Y")) is (seen > 2)
            floor.advance()


def test_a_bar_is_stamped_with_its_start_and_has_every_field_of_alpacas() -> None:
    with Floor(minutes({"X": [(1.0, 3.0, 0.5, 2.0), flat(1.0)]}, volume=123.0)) as floor:
        assert bars(floor, symbols="X")["X"] == [
            {"t": "2024-01-02T14:30:00Z", "o": 1.0, "h": 3.0, "l": 0.5, "c": 2.0, "v": 123.0, "n": 1, "vw": 2.0}
        ]
    with Floor(days({"X": [flat(1.0)] * 2}, dates=["2024-07-03", "2024-07-05"])) as floor:
        shown = bars(floor, symbols="X", timeframe="1Day")["X"]
        assert [bar["t"] for bar in shown] == ["2024-07-03T04:00:00Z"]


@pytest.mark.parametrize("sort", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_pages_go_on_where_the_last_one_ended(sort: str, limit: int) -> None:
    rows = [flat(100.0 + n) for n in range(5)]
    with Floor(minutes({"X": rows, "Y": rows[:3], "Z": rows})) as floor:
        floor.advance(4)
        whole = {symbol: list(range(100, 105)) for symbol in ("X", "Z")}
        expected = {**whole, "Y": [100, 101, 102]}
        if sort == "desc":
            expected = {symbol: closes[::-1] for symbol, closes in expected.items()}
        found: dict[str, list[float]] = {}
        token = None
        for _ in range(14):
            query = {"symbols": "Z,X,Y,Q", "limit": limit, "sort": sort, **ONE_MINUTE}
            page = floor.get("/v2/stocks/bars", **query, **({"page_token": token} if token else {}))
            assert sum(map(len, page["bars"].values())) <= limit
            for symbol, part in page["bars"].items():
                found.setdefault(symbol, []).extend(bar["c"] for bar in part)
            token = page["next_page_token"]
            if token is None:
                break
        assert token is None
        assert found == expected


def test_start_and_end_are_inclusive_starts_of_bars_in_any_zone() -> None:
    with Floor(minutes({"X": [flat(100.0 + n) for n in range(4)]})) as floor:
        floor.advance(3)
        window = {"start": "2024-01-02T09:31:00-05:00", "end": "2024-01-02T14:32:00Z"}
        assert [bar["c"] for bar in bars(floor, symbols="X", **window)["X"]] == [101.0, 102.0]
        assert len(bars(floor, symbols="X", start="2024-01-02", end="2024-01-02")["X"]) == 4
        assert bars(floor, symbols="X", end="2024-01-01") == {}
        one = floor.get("/v2/stocks/X/bars", timeframe="1Min", limit=2)
        assert (one["symbol"], len(one["bars"]), one["next_page_token"] is None) == ("X", 2, False)


def test_prices_arrive_to_the_last_bit() -> None:
    sample = load_sample("tech", ("MSFT",))
    frame = sample.frames["MSFT"]
    with Floor(sample, start=frame.index[2000]) as floor:
        shown = bars(floor, symbols="MSFT", timeframe="1Day", limit=10_000)["MSFT"]
        assert [[bar[name] for name in "ohlcv"] for bar in shown] == frame.iloc[:2000].to_numpy().tolist()

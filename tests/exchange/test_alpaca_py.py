"""The four real clients of alpaca-py against the exchange, unpatched."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.live import StockDataStream
from alpaca.data.requests import StockBarsRequest, StockLatestBarRequest
from alpaca.data.timeframe import TimeFrame
from alpaca.trading.client import TradingClient
from alpaca.trading.enums import OrderClass, OrderSide, OrderStatus, QueryOrderStatus, TimeInForce
from alpaca.trading.models import Order
from alpaca.trading.requests import (
    ClosePositionRequest,
    GetCalendarRequest,
    GetOrdersRequest,
    LimitOrderRequest,
    MarketOrderRequest,
    ReplaceOrderRequest,
    StopLossRequest,
    TakeProfitRequest,
)
from alpaca.trading.stream import TradingStream

from tests.exchange.floor import KEY, SECRET, Floor, broker, flat, minutes

ODD = 100.1 + 0.2  # 100.3 with a last bit that a rounding would lose


@contextmanager
def listening(stream: Any) -> Iterator[None]:
    """Run a stream in a thread, and end it as its loop's own task does, in milliseconds."""
    thread = threading.Thread(target=stream.run)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(stream.stop_ws(), stream._loop).result(5.0)
        asyncio.run_coroutine_threadsafe(stream.close(), stream._loop).result(5.0)
        thread.join(10.0)
        assert not thread.is_alive()


def test_a_bracket_is_traded_with_all_four_clients() -> None:
    prices = [flat(100.0), flat(ODD), (ODD, 111.0, 100.0, 110.0), flat(110.0)]
    heard: queue.Queue[Any] = queue.Queue()
    seen: queue.Queue[Any] = queue.Queue()

    async def on_update(update: Any) -> None:
        heard.put(update)

    async def on_bar(bar: Any) -> None:
        seen.put(bar)

    with Floor(minutes({"X": prices}), terms=broker(slippage_bps=3.0)) as floor:
        url, socket = floor.exchange.url, floor.exchange.url.replace("http", "ws")
        trading = TradingClient(KEY, SECRET, url_override=url)
        history = StockHistoricalDataClient(KEY, SECRET, url_override=url)
        data = StockDataStream(KEY, SECRET, url_override=f"{socket}/v2/iex")
        updates = TradingStream(KEY, SECRET, url_override=f"{socket}/stream")
        data.subscribe_bars(on_bar, "X")
        updates.subscribe_trade_updates(on_update)
        with listening(data), listening(updates):
            wait_until_connected(floor, trading, heard, seen)
            while not heard.empty():
                heard.get()
            made = trading.submit_order(
                MarketOrderRequest(
                    symbol="X",
                    qty=3,
                    side=OrderSide.BUY,
                    time_in_force=TimeInForce.GTC,
                    order_class=OrderClass.BRACKET,
                    take_profit=TakeProfitRequest(limit_price=110.5),
                    stop_loss=StopLossRequest(stop_price=90),
                    client_order_id="entry",
                )
            )
            assert isinstance(made, Order)
            assert made.status == OrderStatus.PENDING_NEW
            assert [leg.status for leg in made.legs or []] == [OrderStatus.HELD] * 2
            floor.advance()
            pending, new, fill, woken = (heard.get(timeout=5.0) for _ in range(4))
            assert [one.event for one in (pending, new, fill, woken)] == ["pending_new", "new", "fill", "new"]
            assert fill.price == ODD * (1.0 + 3.0 * 1e-4)
            assert (fill.qty, fill.position_qty, fill.order.client_order_id) == (3.0, 3.0, "entry")
            floor.advance()
            sold, canceled = heard.get(timeout=5.0), heard.get(timeout=5.0)
            assert (sold.event, sold.price, canceled.event) == ("fill", 110.5, "canceled")
            bars = [seen.get(timeout=5.0) for _ in range(2)]
            assert [bar.close for bar in bars] == [ODD, 110.0]
        nested = trading.get_orders(GetOrdersRequest(status=QueryOrderStatus.ALL, nested=True))
        assert [leg.status for leg in nested[0].legs] == [OrderStatus.FILLED, OrderStatus.CANCELED]
        past = history.get_stock_bars(StockBarsRequest(symbol_or_symbols="X", timeframe=TimeFrame.Minute))
        assert [bar.close for bar in past["X"]] == [100.0, ODD, 110.0]
        latest = history.get_stock_latest_bar(StockLatestBarRequest(symbol_or_symbols=["X"]))
        assert latest["X"].close == 110.0


def wait_until_connected(floor: Floor, trading: TradingClient, heard: Any, seen: Any) -> None:
    """Orders that cannot fill tell when the trading stream listens; the data stream says so when it subscribes."""
    for _ in range(5_000):
        trading.submit_order(
            LimitOrderRequest(symbol="X", qty=1, side="buy", time_in_force="day", limit_price=1)  # type: ignore[arg-type]
        )
        trading.cancel_orders()
        try:
            heard.get(timeout=0.01)
        except queue.Empty:
            continue
        break
    subscribed = floor.exchange._exchange.clients[0]
    for _ in range(5_000):
        if subscribed.data is not None and subscribed.data.symbols["bars"]:
            break
        floor.get("/nextbar/status")
    expected = floor.get("/nextbar/status")["trade_updates"]
    assert expected
    count = 1
    while count < expected:
        heard.get(timeout=5.0)
        count += 1


@pytest.fixture
def floor() -> Iterator[Floor]:
    with Floor(minutes({"X": [flat(100.0)] * 6, "Y": [flat(50.0)] * 6})) as made:
        yield made


@pytest.fixture
def client(floor: Floor) -> TradingClient:
    return TradingClient(KEY, SECRET, url_override=floor.exchange.url)


def test_every_call_of_the_trading_client(floor: Floor, client: TradingClient) -> None:
    account: Any = client.get_account()
    assert (account.status, account.equity, account.shorting_enabled) == ("ACTIVE", "10000", False)
    clock: Any = client.get_clock()
    assert clock.is_open
    assert clock.timestamp < clock.next_close < clock.next_open
    half: Any = client.get_calendar(GetCalendarRequest(start=date(2024, 7, 3), end=date(2024, 7, 3)))
    assert f"{half[0].open:%H:%M}-{half[0].close:%H:%M}" == "09:30-13:00"
    assets: Any = client.get_all_assets()
    assert [asset.symbol for asset in assets] == ["X", "Y"]
    asset: Any = client.get_asset("X")
    assert asset.tradable

    order: Any = client.submit_order(
        LimitOrderRequest(symbol="X", qty=2, side=OrderSide.BUY, time_in_force=TimeInForce.GTC, limit_price=90)
    )
    replaced: Any = client.replace_order_by_id(order.id, ReplaceOrderRequest(qty=3, limit_price=100))
    assert (replaced.replaces, float(replaced.qty)) == (order.id, 3.0)
    by_client: Any = client.get_order_by_client_id(replaced.client_order_id)
    by_id: Any = client.get_order_by_id(replaced.id)
    assert by_client.id == by_id.id == replaced.id
    floor.advance()
    positions: Any = client.get_all_positions()
    assert [(one.symbol, one.qty, one.side) for one in positions] == [("X", "3", "long")]
    position: Any = client.get_open_position("X")
    assert position.avg_entry_price == "100"
    closing: Any = client.close_position("X", ClosePositionRequest(qty="1"))
    client.cancel_order_by_id(closing.id)
    responses: Any = client.close_all_positions(cancel_orders=True)
    assert [(one.symbol, one.status, one.body.qty) for one in responses] == [("X", 200, "3")]
    canceled: Any = client.cancel_orders()
    assert [one.status for one in canceled] == [200]
    history: Any = client.get_portfolio_history()
    assert history.equity[-1] == 10_000.0
    listed: Any = client.get_orders(GetOrdersRequest(status=QueryOrderStatus.CLOSED, symbols=["X"], limit=10))
    assert len(listed) == 4


def test_refusals_as_the_sdk_reports_them(client: TradingClient) -> None:
    with pytest.raises(APIError) as refused:
        client.submit_order(
            MarketOrderRequest(symbol="X", qty=1_000, side=OrderSide.BUY, time_in_force=TimeInForce.DAY)
        )
    assert (refused.value.status_code, refused.value.code) == (403, 40310000)
    with pytest.raises(APIError) as refused:
        client.get_open_position("X")
    assert (refused.value.status_code, refused.value.code) == (404, 40410000)


def test_wrong_keys_as_the_sdk_reports_them(floor: Floor) -> None:
    stranger = TradingClient("other", "keys", url_override=floor.exchange.url)
    with pytest.raises(APIError) as refused:
        stranger.get_account()
    assert refused.value.status_code == 401


def test_history_longer_than_a_page() -> None:
    with Floor(minutes({"X": [flat(100.0)] * 390, "Y": [flat(50.0)] * 390})) as floor:
        floor.advance(388)
        client = StockHistoricalDataClient(KEY, SECRET, url_override=floor.exchange.url)
        asked = StockBarsRequest(symbol_or_symbols=["X", "Y"], timeframe=TimeFrame.Minute, limit=500)
        found: Any = client.get_stock_bars(asked)
        assert [len(found[symbol]) for symbol in ("X", "Y")] == [389, 111]

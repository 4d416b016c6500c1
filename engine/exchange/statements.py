"""What an account, its positions and its history look like on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.exchange.account import Account
from engine.exchange.exchange import Exchange
from engine.exchange.wire import asset_id, moment, number
from engine.trading.orders import OrderStatus
from engine.trading.risk import MAINTENANCE
from engine.trading.venue import MARGIN_MULTIPLIER

_EXCHANGE = "NASDAQ"
_NANOSECONDS = 1_000_000_000


def account_statement(exchange: Exchange, account: Account) -> dict[str, Any]:
    """The account in Alpaca's fields; buying power is what positions leave, open orders not yet taken off."""
    ledger, prices = account.venue.ledger, exchange.prices
    equity, gross = ledger.equity(prices), ledger.gross(prices)
    held = [(p.quantity, prices[s]) for s, p in sorted(ledger.positions.items()) if p.quantity]
    margin = account.venue.account == "margin"
    buying_power = max(0.0, MARGIN_MULTIPLIER * equity - gross) if margin else max(0.0, ledger.cash)
    last_equity = account.days[-1][1] if account.days else account.spec.broker.cash
    return {
        "id": account.id,
        "account_number": f"NB{account.id[:8].upper()}",
        "status": "ACTIVE",
        "crypto_status": "INACTIVE",
        "currency": "USD",
        "cash": number(ledger.cash),
        "equity": number(equity),
        "last_equity": number(last_equity),
        "portfolio_value": number(equity),
        "buying_power": number(buying_power),
        "regt_buying_power": number(buying_power),
        "non_marginable_buying_power": number(max(0.0, ledger.cash)),
        "multiplier": number(MARGIN_MULTIPLIER if margin else 1.0),
        "shorting_enabled": account.venue.short,
        "long_market_value": number(sum(quantity * price for quantity, price in held if quantity > 0.0)),
        "short_market_value": number(sum(quantity * price for quantity, price in held if quantity < 0.0)),
        "initial_margin": number(gross / MARGIN_MULTIPLIER),
        "maintenance_margin": number(gross * MAINTENANCE),
        "last_maintenance_margin": "0",
        "accrued_fees": "0",
        "sma": "0",
        "created_at": moment(exchange.market.opening),
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "trade_suspended_by_user": False,
    }


def positions(exchange: Exchange, account: Account) -> list[dict[str, Any]]:
    """Every open position, in symbol order."""
    held = account.venue.ledger.positions
    return [position(exchange, account, symbol) for symbol in sorted(held) if held[symbol].quantity]


def position(exchange: Exchange, account: Account, symbol: str) -> dict[str, Any]:
    """An open position in Alpaca's fields; marked at the last close."""
    held = account.venue.ledger.positions[symbol]
    price = exchange.prices[symbol]
    last = exchange.last_day_prices.get(symbol, price)
    cost, value = held.quantity * held.average_price, held.quantity * price
    today = held.quantity * (price - last)
    return {
        "asset_id": asset_id(symbol),
        "symbol": symbol,
        "exchange": _EXCHANGE,
        "asset_class": "us_equity",
        "asset_marginable": account.venue.account == "margin",
        "qty": number(held.quantity),
        "qty_available": number(_available(account, symbol)),
        "side": "long" if held.quantity > 0.0 else "short",
        "avg_entry_price": number(held.average_price),
        "cost_basis": number(cost),
        "market_value": number(value),
        "unrealized_pl": number(value - cost),
        "unrealized_plpc": number((value - cost) / abs(cost)),
        "unrealized_intraday_pl": number(today),
        "unrealized_intraday_plpc": number(today / abs(held.quantity * last)),
        "current_price": number(price),
        "lastday_price": number(last),
        "change_today": number(price / last - 1.0),
    }


def _available(account: Account, symbol: str) -> float:
    """Signed quantity that no open order holds; of a bracket's exits only one will fill."""
    reserved: dict[tuple[str, int], float] = {}
    for order in account.venue.open_orders.values():
        if order.symbol == symbol and order.closing and order.status is OrderStatus.ACCEPTED:
            key = ("group", order.group) if order.group else ("order", order.id)
            reserved[key] = max(reserved.get(key, 0.0), order.remaining)
    held = account.venue.ledger.quantity(symbol)
    free = max(0.0, abs(held) - sum(reserved.values()))
    return free if held > 0.0 else -free


def asset(account: Account, symbol: str) -> dict[str, Any]:
    """A symbol as an asset of Alpaca's."""
    margin = account.venue.account == "margin"
    return {
        "id": asset_id(symbol),
        "class": "us_equity",
        "exchange": _EXCHANGE,
        "symbol": symbol,
        "name": symbol,
        "status": "active",
        "tradable": True,
        "marginable": margin,
        "maintenance_margin_requirement": 100.0 * MAINTENANCE,
        "shortable": account.venue.short,
        "easy_to_borrow": account.venue.short,
        "fractionable": account.venue.fractional,
        "attributes": [],
    }


def portfolio_history(exchange: Exchange, account: Account, *, since: int, until: int) -> dict[str, Any]:
    """Equity at the end of each session and now, within UTC nanoseconds; always of a day's resolution."""
    points: Mapping[int, float] = {
        **dict(account.days),
        exchange.now: account.venue.ledger.equity(exchange.prices),
    }
    base = account.spec.broker.cash
    shown = [(time, equity) for time, equity in points.items() if since <= time <= until]
    return {
        "timestamp": [time // _NANOSECONDS for time, _ in shown],
        "equity": [equity for _, equity in shown],
        "profit_loss": [equity - base for _, equity in shown],
        "profit_loss_pct": [equity / base - 1.0 for _, equity in shown],
        "base_value": base,
        "timeframe": "1D",
    }

"""A made-up but coherent run: seeded prices, a rule that enters and leaves, its fills, trades and equity."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from engine.report.hashes import fills_hash, orders_hash
from engine.report.run import Run
from engine.report.trade_metrics import run_metrics

SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT")
CASH = 100_000.0
SLIPPAGE_BPS = 2.0
COMMISSION_BPS = 1.0


def sample_run(
    *,
    name: str = "sample",
    symbols: tuple[str, ...] = SYMBOLS,
    bars: int = 500,
    seed: int = 1,
    trading_seed: int = 1,
    forecasts: bool = True,
    benchmark: bool = True,
    commission_bps: float = COMMISSION_BPS,
    times: pd.DatetimeIndex | None = None,
    timeframe: str = "1d",
    **manifest: Any,
) -> Run:
    """A run whose frames agree with one another; further keywords go into the manifest."""
    times = (
        times if times is not None else pd.bdate_range("2011-01-03", periods=bars, name="time", tz="UTC").shift(21, "h")
    )
    rng = np.random.default_rng(seed)
    market = rng.standard_t(4, len(times)) * 0.006
    prices = {s: _bars(times, market, rng) for s in symbols}
    account = _trade(prices, np.random.default_rng(trading_seed), commission_bps)
    closes = np.column_stack([p["close"].to_numpy() for p in prices.values()])
    equity = account["equity"]
    equity["buy_and_hold"] = CASH * (closes / closes[0]).mean(axis=1)
    equity["benchmark"] = CASH * np.exp(np.cumsum(np.r_[0.0, market[1:]])) if benchmark else np.nan
    predicted = _forecasts(prices, rng) if forecasts else pd.DataFrame()
    frames = {k: account[k] for k in ("orders", "fills", "trades")}
    return Run(
        manifest={
            "kind": "backtest",
            "name": name,
            "status": "completed",
            "symbols": list(symbols),
            "hashes": {"config": "c" * 64, "data": "d" * 64, "model": "e" * 64, "strategy": "f" * 64},
            "seed": 7,
            "threads": 1,
            "versions": {"nextbar": "0.1.0", "torch": "2.13.0", "backtrader": "1.9.78.123"},
            "in_sample": False,
            "synthetic": False,
            "survivor_biased": False,
            "close_only": False,
            "orders_hash": orders_hash(frames["orders"]),
            "fills_hash": fills_hash(frames["fills"]),
            **manifest,
        },
        config={
            "name": name,
            "data": {
                "source": "sample:tech",
                "symbols": list(symbols),
                "timeframe": timeframe,
                "benchmark": "sample:sp500",
            },
            "model": {"kind": "lstm", "horizon": 1},
            "strategy": {"kind": "strategies.forecast:Forecast", "params": {"cap": 0.25}},
            "broker": {"cash": CASH, "commission": {"bps": commission_bps}, "slippage_bps": SLIPPAGE_BPS},
        },
        metrics=run_metrics(
            equity=equity, **frames, timeframe=timeframe, forecast=_scores(predicted) if forecasts else None
        ),
        equity=equity,
        **frames,
        forecasts=predicted,
        bars=pd.concat([p.reset_index().assign(symbol=s) for s, p in prices.items()], ignore_index=True),
    )


def changed(run: Run, **manifest: Any) -> Run:
    """The same run with other manifest values."""
    return replace(run, manifest={**run.manifest, **manifest})


def _bars(times: pd.DatetimeIndex, market: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    count = len(times)
    returns = 0.0003 + market + rng.standard_t(4, count) * 0.008
    close = 50.0 * (1 + rng.random()) * np.exp(np.cumsum(returns))
    open_ = np.r_[close[0], close[:-1]] * np.exp(rng.normal(0, 0.004, count))
    spread = np.abs(rng.normal(0, 0.006, (2, count)))
    return pd.DataFrame(
        {
            "open": open_,
            "high": np.maximum(open_, close) * (1 + spread[0]),
            "low": np.minimum(open_, close) * (1 - spread[1]),
            "close": close,
            "volume": rng.integers(1_000_000, 5_000_000, count).astype(float),
        },
        index=times,
    )


def _trade(prices: dict[str, pd.DataFrame], rng: np.random.Generator, commission_bps: float) -> dict[str, pd.DataFrame]:
    """Each symbol is bought at a quarter of the cash and sold some bars later, always at the next bar's open."""
    times = next(iter(prices.values())).index
    cash = np.full(len(times), CASH)
    value = np.zeros(len(times))
    orders, fills, trades = [], [], []
    for symbol, frame in prices.items():
        bar = int(rng.integers(5, 20))
        while bar < len(times) - 2:
            hold = int(rng.integers(2, 15))
            quantity = float(np.floor(CASH / (len(prices) + 1) / frame["close"].iloc[bar]))
            legs = []
            for side, at in (("buy", bar), ("sell", bar + hold)):
                if at + 1 >= len(times):
                    continue
                sign = 1 if side == "buy" else -1
                reference = float(frame["open"].iloc[at + 1])
                price = reference * (1 + sign * SLIPPAGE_BPS / 1e4)
                commission = quantity * price * commission_bps / 1e4
                legs.append((price, commission))
                cash[at + 1 :] -= sign * quantity * price + commission
                common = {"symbol": symbol, "side": side, "quantity": quantity}
                orders.append({**common, "time": times[at]})
                fills.append(
                    {
                        **common,
                        "decision_time": times[at],
                        "time": times[at + 1],
                        "price": price,
                        "commission": commission,
                        "slippage": abs(price - reference) * quantity,
                    }
                )
            last = min(bar + hold + 1, len(times))
            value[bar + 1 : last] += quantity * frame["close"].to_numpy()[bar + 1 : last]
            is_open = len(legs) == 1
            exit_price = float(frame["close"].iloc[-1]) if is_open else legs[1][0]
            paid = sum(c for _, c in legs)
            pnl = (exit_price - legs[0][0]) * quantity - paid
            trades.append(
                {
                    "symbol": symbol,
                    "side": "long",
                    "entry_time": times[bar + 1],
                    "exit_time": pd.NaT if is_open else times[bar + hold + 1],
                    "quantity": quantity,
                    "entry_price": legs[0][0],
                    "exit_price": exit_price,
                    "pnl": pnl,
                    "return_pct": pnl / (legs[0][0] * quantity) * 100,
                    "commission": paid,
                    "bars": min(hold, len(times) - bar - 2),
                    "open": is_open,
                }
            )
            bar += hold + int(rng.integers(3, 25))
    ordered = pd.DataFrame(orders).sort_values("time", kind="stable", ignore_index=True)
    filled = pd.DataFrame(fills).sort_values("time", kind="stable", ignore_index=True)
    ordered["order_id"] = filled["order_id"] = np.arange(1, len(ordered) + 1)
    ordered = ordered.assign(
        type="market",
        limit_price=np.nan,
        stop_price=np.nan,
        time_in_force="gtc",
        status="filled",
        filled_quantity=ordered["quantity"],
        reason="",
    )
    equity = pd.DataFrame({"equity": cash + value, "cash": cash, "gross_exposure": value / (cash + value)}, index=times)
    return {
        "orders": ordered,
        "fills": filled,
        "trades": pd.DataFrame(trades).sort_values("entry_time", kind="stable", ignore_index=True),
        "equity": equity,
    }


def _forecasts(prices: dict[str, pd.DataFrame], rng: np.random.Generator) -> pd.DataFrame:
    parts = []
    for symbol, frame in prices.items():
        returns = np.diff(np.log(frame["close"].to_numpy()), prepend=np.nan)
        realised = np.r_[returns[1:], np.nan]
        forecast = rng.normal(0.0003, 0.002, len(frame))
        width = 0.02 + 0.2 * np.abs(np.nan_to_num(returns))
        parts.append(
            pd.DataFrame(
                {
                    "time": frame.index,
                    "symbol": symbol,
                    "forecast": forecast,
                    "lower": forecast - width,
                    "upper": forecast + width,
                    "realised": realised,
                    "last_return": returns,
                    "in_sample": False,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _scores(predicted: pd.DataFrame) -> dict[str, float | int | None]:
    known = predicted.dropna(subset=["realised", "last_return"])
    scores: dict[str, float | int | None] = {"n": len(known), "nominal_coverage_pct": 80.0}
    guesses = {"": known["forecast"], "_zero": 0.0, "_last_return": known["last_return"], "_train_mean": 0.0005}
    for suffix, values in guesses.items():
        error = known["realised"] - values
        scores[f"mae{suffix}"] = float(error.abs().mean())
        scores[f"rmse{suffix}"] = float(np.sqrt((error**2).mean()))
    scores["hit_rate_pct"] = float((np.sign(known["forecast"]) == np.sign(known["realised"])).mean() * 100)
    scores["always_up_pct"] = float((known["realised"] > 0).mean() * 100)
    scores["coverage_pct"] = float(known["realised"].between(known["lower"], known["upper"]).mean() * 100)
    return scores


def charts_of(page: str) -> dict[str, Any]:
    """The charts that a page embeds, with their times in place."""
    text = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, flags=re.S)
    assert text is not None
    embedded = json.loads(text[1])
    for choices in embedded["charts"].values():
        for trace in (trace for choice in choices for trace in choice["data"]):
            trace["x"] = embedded["times"][trace["x"]]
    return embedded["charts"]

"""What each metric is called, how it is written, and which way is better: one list for page, table and comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Unit = Literal["pct", "ratio", "money", "count", "days", "bars", "log_return", "probability", "score"]
Better = Literal["higher", "lower"]

_MINUS = "−"
NOTHING = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: its key in metrics.json, its label, its unit, and which way is better (None: neither)."""

    key: str
    label: str
    unit: Unit
    better: Better | None = None

    def text(self, value: float | int | None) -> str:
        """The value as people read it; a dash for None."""
        if value is None:
            return NOTHING
        if self.unit == "log_return":
            value *= 1e4  # a page speaks of basis points
        if self.unit == "count":
            return f"{int(value):,}".replace("-", _MINUS)
        places = {
            "pct": 2,
            "ratio": 2,
            "money": 2,
            "days": 0,
            "bars": 1,
            "log_return": 2,
            "probability": 3,
            "score": 4,
        }[self.unit]
        number = f"{value:,.{places}f}".replace("-", _MINUS)
        if float(f"{value:.{places}f}") == 0.0:
            number = number.removeprefix(_MINUS)
        return f"{number} %" if self.unit == "pct" else number


def _metric(key: str, label: str, unit: Unit, better: Better | None = None) -> Metric:
    return Metric(key=key, label=label, unit=unit, better=better)


SECTIONS: dict[str, tuple[Metric, ...]] = {
    "Return": (
        _metric("total_return_pct", "Total return", "pct", "higher"),
        _metric("return_over_buy_and_hold_pct", "Return over buy-and-hold, points", "pct", "higher"),
        _metric("cagr_pct", "Growth a year (CAGR)", "pct", "higher"),
        _metric("final_equity", "Final equity", "money", "higher"),
        _metric("peak_equity", "Peak equity", "money", "higher"),
        _metric("best_period_pct", "Best session", "pct"),
        _metric("worst_period_pct", "Worst session", "pct", "higher"),
        _metric("periods", "Session returns", "count"),
    ),
    "Ratios": (
        _metric("sharpe_ratio", "Sharpe ratio (ann.)", "ratio", "higher"),
        _metric("sharpe_low", "Sharpe, 95 % interval from", "ratio", "higher"),
        _metric("sharpe_high", "Sharpe, 95 % interval to", "ratio"),
        _metric("probabilistic_sharpe_ratio", "Probability that Sharpe > 0", "probability", "higher"),
        _metric("sortino_ratio", "Sortino ratio (ann.)", "ratio", "higher"),
        _metric("calmar_ratio", "Calmar ratio", "ratio", "higher"),
        _metric("omega_ratio", "Omega ratio", "ratio", "higher"),
    ),
    "Risk": (
        _metric("volatility_ann_pct", "Volatility (ann.)", "pct", "lower"),
        _metric("max_drawdown_pct", "Maximum drawdown", "pct", "higher"),
        _metric("average_drawdown_pct", "Average drawdown", "pct", "higher"),
        _metric("max_drawdown_duration_days", "Longest drawdown, days", "days", "lower"),
        _metric("ulcer_index_pct", "Ulcer index", "pct", "lower"),
        _metric("value_at_risk_95_pct", "Value at risk, 95 %, a session", "pct", "higher"),
        _metric("expected_shortfall_95_pct", "Expected shortfall, 95 %", "pct", "higher"),
        _metric("tail_ratio", "Tail ratio", "ratio", "higher"),
        _metric("skew", "Skew", "ratio"),
        _metric("excess_kurtosis", "Excess kurtosis", "ratio"),
    ),
    "Exposure": (
        _metric("exposure_pct", "Bars with a position", "pct"),
        _metric("average_gross_exposure_pct", "Average gross exposure", "pct"),
        _metric("turnover_ann", "Turnover a year, times", "ratio", "lower"),
    ),
    "Against the benchmark": (
        _metric("alpha_ann_pct", "Alpha (ann.)", "pct", "higher"),
        _metric("beta", "Beta", "ratio"),
        _metric("correlation", "Correlation", "ratio"),
        _metric("r2", "R²", "ratio"),
        _metric("information_ratio", "Information ratio (ann.)", "ratio", "higher"),
        _metric("tracking_error_ann_pct", "Tracking error (ann.)", "pct"),
    ),
    "Trades": (
        _metric("trades", "Closed trades", "count"),
        _metric("open_trades", "Open trades", "count"),
        _metric("win_rate_pct", "Win rate", "pct", "higher"),
        _metric("best_trade_pct", "Best trade", "pct"),
        _metric("worst_trade_pct", "Worst trade", "pct", "higher"),
        _metric("average_trade_pct", "Average trade", "pct", "higher"),
        _metric("expectancy", "Expectancy, a trade", "money", "higher"),
        _metric("profit_factor", "Profit factor", "ratio", "higher"),
        _metric("payoff_ratio", "Payoff ratio", "ratio", "higher"),
        _metric("sqn", "System quality number", "ratio", "higher"),
        _metric("kelly_fraction", "Kelly fraction", "ratio"),
        _metric("longest_win_streak", "Longest run of wins", "count"),
        _metric("longest_loss_streak", "Longest run of losses", "count"),
        _metric("average_trade_bars", "Average trade, bars", "bars"),
    ),
    "Costs": (
        _metric("commission_paid", "Commission", "money", "lower"),
        _metric("slippage_paid", "Slippage", "money", "lower"),
        _metric("borrow_and_margin_paid", "Borrow and margin interest", "money", "lower"),
        _metric("costs_pct", "Costs, of the starting equity", "pct", "lower"),
        _metric("orders", "Orders sent", "count"),
        _metric("orders_refused", "Orders refused by the risk gate", "count"),
        _metric("fills", "Fills", "count"),
    ),
}
METRICS: dict[str, Metric] = {m.key: m for section in SECTIONS.values() for m in section}

SCORES: tuple[Metric, ...] = (
    _metric("mae", "Mean absolute error, bps", "log_return", "lower"),
    _metric("rmse", "Root mean square error, bps", "log_return", "lower"),
    _metric("mase", "MASE", "ratio", "lower"),
    _metric("r2_out_of_sample", "R² out of sample, against zero", "score", "higher"),
    _metric("hit_rate_pct", "Hit rate", "pct", "higher"),
    _metric("coverage_pct", "Coverage of the interval", "pct"),
    _metric("nominal_coverage_pct", "Coverage it should have", "pct"),
    _metric("coverage_p", "p of that coverage", "probability"),
    _metric("crps", "CRPS of three quantiles, bps", "log_return", "lower"),
    _metric("dm_zero_p", "p of being better than zero (Diebold, Mariano)", "probability", "lower"),
    _metric("pt_p", "p of its signs (Pesaran, Timmermann)", "probability", "lower"),
    _metric("mz_intercept", "Outcome on forecast, intercept, bps", "log_return"),
    _metric("mz_slope", "Outcome on forecast, slope", "ratio"),
    _metric("mz_p", "p of intercept 0 and slope 1 (Mincer, Zarnowitz)", "probability"),
    _metric("ic", "Correlation over symbols (IC)", "score", "higher"),
    _metric("rank_ic", "Rank correlation over symbols (RankIC)", "score", "higher"),
    _metric("rank_ic_t", "RankIC, t", "ratio"),
    _metric("n", "Forecasts scored", "count"),
)
BASELINES: dict[str, str] = {
    "zero": "Zero",
    "last_return": "Last return",
    "train_mean": "Training mean",
    "always_up": "Always up",
}


def baseline_key(key: str, baseline: str) -> str:
    """A baseline's key for a score: its name before the unit, ``hit_rate_zero_pct``; always-up has a hit rate only."""
    if baseline == "always_up":
        return "always_up_pct" if key == "hit_rate_pct" else ""
    stem = key.removesuffix("_pct")
    return f"{stem}_{baseline}{key[len(stem) :]}"


_SCORES = {s.key: s for s in SCORES}
_SCORES |= {baseline_key(s.key, name): s for s in SCORES for name in BASELINES}


def metric(key: str) -> Metric:
    """The metric of that key; one that is in no list is described by the words of its name and its unit."""
    known = METRICS.get(key) or _SCORES.get(key)
    if known is not None:
        return known
    label = key.removesuffix("_pct").replace("_", " ")
    return Metric(key=key, label=label[:1].upper() + label[1:], unit="pct" if key.endswith("_pct") else "ratio")


def best(key: str, values: Sequence[float | int | None]) -> set[int]:
    """Positions of the best value; none where no way is better, fewer than two are known, or all are equal."""
    better = metric(key).better
    known = [v for v in values if v is not None]
    if better is None or len(known) < 2 or min(known) == max(known):
        return set()
    winner = max(known) if better == "higher" else min(known)
    return {i for i, v in enumerate(values) if v == winner}

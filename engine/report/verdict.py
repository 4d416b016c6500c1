"""One or two plain sentences at the top of a report: what the figures say, and what they do not."""

from __future__ import annotations

from collections.abc import Mapping

from engine.report.run import Run

Figures = Mapping[str, float | int | None]


def verdict(run: Run) -> list[str]:
    """The sentences, the most important first. They claim nothing that the interval does not carry."""
    sentences = []
    if run.manifest.get("in_sample"):
        sentences.append("The model has seen these bars in training: nothing here says how it does on new ones.")
    remarks = [f"Note: {remark}." for remark in run.manifest.get("remarks", [])]
    return [*sentences, *_money(run.metrics), *_forecast(run.metrics.get("forecast", {})), *remarks]


def _money(metrics: Mapping[str, Figures]) -> list[str]:
    own, held = metrics.get("strategy", {}), metrics.get("buy_and_hold", {})
    total, passive = own.get("total_return_pct"), held.get("total_return_pct")
    if total is None:
        return ["There are too few bars to judge the strategy."]
    sentences = []
    if not own.get("fills"):
        sentences.append("Nothing was traded: no order was filled.")
    elif passive is None:
        sentences.append(f"Returned {_percent(total)} after costs.")
    elif abs(total - passive) < 0.005:
        sentences.append(f"Did as buy-and-hold did after costs: {_percent(total)}.")
    elif total > passive:
        sentences.append(
            f"Beat buy-and-hold after costs: {_percent(total)} against {_percent(passive)}{_risk(own, held)}."
        )
    else:
        sentences.append(
            f"Did not beat buy-and-hold after costs: {_percent(total)} against {_percent(passive)}{_risk(own, held)}."
        )
    sharpe, low, high = (own.get(key) for key in ("sharpe_ratio", "sharpe_low", "sharpe_high"))
    if sharpe is not None and low is not None and high is not None:
        interval = f"Sharpe {_number(sharpe)}, 95 % interval {_number(low)} to {_number(high)}"
        if low <= 0.0 <= high:
            sentences.append(f"{interval}, which includes zero: the result cannot be told from chance.")
        else:
            sentences.append(f"{interval}, which excludes zero if this was the only strategy tried.")
    return sentences


def _risk(own: Figures, held: Figures) -> str:
    mine, passive = own.get("max_drawdown_pct"), held.get("max_drawdown_pct")
    if mine is None or passive is None:
        return ""
    how = "smaller" if mine > passive else "larger"
    return f", with a {how} drawdown ({_percent(mine)} against {_percent(passive)})"


def _forecast(scores: Figures) -> list[str]:
    own, zero = scores.get("mae"), scores.get("mae_zero")
    if own is None or zero is None:
        return []
    figures = f"{own * 1e4:.2f} bps against {zero * 1e4:.2f}"
    if own < zero:
        margin = (1.0 - own / zero) * 100
        sentence = f"The forecast's error is {margin:.2f} % below the zero forecast's ({figures})"
        return [f"{sentence}, {_chance(scores.get('dm_zero_p'))}."]
    return [f"The forecast's error is not below the zero forecast's ({figures})."]


def _chance(p: float | int | None) -> str:
    """What the test against the zero forecast makes of a smaller error."""
    if p is None:
        return "which alone is no proof of skill"
    test = f"Diebold and Mariano on squared errors, p {p:.3f}"
    return f"which chance explains ({test})" if p >= 0.05 else f"more than chance explains in a single try ({test})"


def _percent(value: float) -> str:
    return f"{value:+.2f} %".replace("-", "−")


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")

"""What people see: tables, sentences and progress on stderr; data on stdout."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, is_dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast, get_args

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.config import SpanName
from engine.errors import ConfigError

if TYPE_CHECKING:
    from engine.checks import Check
    from engine.doctor import Diagnosis
    from engine.kill import KillReport, PauseReport
    from engine.live.account_picture import Told
    from engine.report.comparison import Comparison
    from engine.training import TrainingReport
    from engine.twin import TwinReport

_SHOWN = (
    "total_return_pct",
    "cagr_pct",
    "sharpe_ratio",
    "volatility_ann_pct",
    "max_drawdown_pct",
    "exposure_pct",
    "trades",
    "win_rate_pct",
    "turnover_ann",
    "costs_pct",
)
_SCORES = ("mae", "rmse", "mase", "hit_rate_pct", "r2_out_of_sample")
_BASELINES = {"zero": "zero", "last_return": "last return", "train_mean": "train mean", "always_up": "always up"}


def _console() -> Console:
    # Made anew each time, so that stderr is the present one; rich honours NO_COLOR by itself.
    width = None if sys.stderr.isatty() else 120
    return Console(stderr=True, highlight=False, soft_wrap=True, width=width, markup=False, emoji=False)


def console(*, width: int) -> Console:
    """A console on stderr whose tables wrap at its edge, or at ``width`` where nobody watches.

    Words are printed as they are: names that people give may look like markup.
    """
    width_now = None if sys.stderr.isatty() else width
    return Console(stderr=True, highlight=False, width=width_now, markup=False, emoji=False)


def is_interactive() -> bool:
    """Whether a person watches stderr."""
    return sys.stderr.isatty()


def say(sentence: str) -> None:
    """One line to the person."""
    _console().print(sentence)


def warn(sentence: str) -> None:
    """A remark that must not be overlooked."""
    _console().print(f"note: {sentence}", style="yellow")


def fail(sentence: str) -> None:
    """Why the command failed."""
    _console().print(f"nextbar: {sentence}", style="red")


def wrote(path: object, *, following: str) -> None:
    """Name what was written and the next useful command."""
    say(f"Wrote {path}\nNext: {following}")


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    print(json.dumps(value, default=str, sort_keys=True, allow_nan=False))


def print_yaml(value: Mapping[str, Any]) -> None:
    """YAML on stdout."""
    import yaml

    print(yaml.safe_dump(dict(value), sort_keys=False), end="")


def pace_seconds(speed: str | None, timeframe: str, *, replay: bool) -> float:
    """Seconds between two steps of a replay: ``5/s``, ``60x`` of real time, or ``max``."""
    if speed is None or speed == "max":
        return 0.0
    if not replay:
        raise ConfigError("--speed: only a replay has one; at Alpaca, time passes by itself")
    if speed.endswith("/s"):
        return 1.0 / _positive(speed.removesuffix("/s"), "--speed", speed)
    from engine.data.timeframes import trading_seconds

    return trading_seconds(timeframe) / _positive(speed.removesuffix("x"), "--speed", speed)


def exchange_speed(speed: str) -> float | None:
    """Simulated seconds a second; None for lock-step."""
    if speed == "lock-step":
        return None
    return math.inf if speed == "max" else _positive(speed.removesuffix("x"), "--speed", speed)


def _positive(number: str, option: str, text: str) -> float:
    try:
        value = float(number)
    except ValueError:
        value = 0.0
    if not 0.0 < value < math.inf:
        raise ConfigError(f"{option}: expected 5/s, 60x or max (an exchange: 60x, max or lock-step), found {text}")
    return value


def print_exchange(url: str) -> None:
    """Where an exchange serves, and how to reach it."""
    say(
        f"Serving at {url} until Ctrl-C. To trade there from another terminal:\n"
        f"  APCA_API_BASE_URL={url} APCA_API_KEY_ID=practice APCA_API_SECRET_KEY=practice nextbar paper CONFIG"
    )


def print_twin(report: TwinReport) -> None:
    """What a twin found."""
    names = {"ended": "outcome", "turned_down": "refusal", "interest": "interest charge", "bundles": "list of bundles"}
    compared = ", ".join(
        f"{count} {names.get(kind, kind)}{'s' * (count != 1)}" for kind, count in report.compared.items()
    )
    say(f"Twin of {report.run.name}: {report.verdict} ({report.steps} bars; {compared}).")
    if report.difference:
        warn(f"the first difference: {report.difference}")
    for remark in report.remarks:
        warn(remark)
    if report.modelled:
        model = "the same orders" if report.same_orders else "other orders"
        model += " and the same fills" if report.same_fills else " and other fills"
        say(f"A backtest over the recorded bars gives {model}.")
    fills = report.fills
    if fills["matched"] and not report.same_fills:
        mean, worst = (round(float(fills[key] or 0.0), 2) + 0.0 for key in ("cost_bps_mean", "cost_bps_worst"))
        say(
            f"Of {fills['matched']} fills of the same orders, the recorded prices cost {mean:+.2f} bps more than the "
            f"modelled ones on average, {worst:+.2f} at worst."
        )


def print_kill(report: KillReport, *, tables: bool) -> None:
    """What a kill has done, and how the account is after it."""
    for remark in report.remarks:
        warn(remark)
    if not tables:
        return
    for title, orders in (("Cancelled", report.canceled), ("Closing", report.closing), ("Open", report.open_orders)):
        listed = [order for order in orders if title != "Open" or order not in report.closing]
        if listed:
            say(f"{title}: " + "; ".join(_order(order, with_end=title == "Closing") for order in listed) + ".")
    if report.held:
        say("Held: " + ", ".join(f"{quantity:g} {symbol}" for symbol, quantity in report.held.items()) + ".")
    for sentence in report.left_alone:
        say(f"Left alone: {sentence}.")
    money = "" if report.equity is None else f"; the account has {report.equity:,.2f}, {report.cash:,.2f} of it in cash"
    state = "flat" if report.flat else "being closed" if report.held and report.safe else "not flat"
    if report.over and report.held:
        state = "at the end of its bars with what it holds"
    elif not report.held and not report.flat:
        state = "without positions, and has open orders"
    say(f"Run {report.run.name} is {state}{money}.")
    if report.closing or report.canceled:
        say("Next: nextbar paper CONFIG, which books what has happened and writes the report, and does not trade")


def _order(order: Told, *, with_end: bool) -> str:
    kind = "" if order.type == "market" else f" {order.type.replace('_', '-')}"
    end = f" ({order.status.replace('_', ' ')})" if with_end else ""
    return f"{order.side} {order.quantity:g} {order.symbol}{kind}{end}"


def print_pause(report: PauseReport) -> None:
    """That entries are paused, and what that means."""
    name = report.run.name
    before = report.paused if report.paused.startswith("paused ") else f"paused, because {report.paused},"
    say(f"Run {name} was {before} already." if report.already else f"Run {name} is paused.")
    say(f"It opens no position; exits and protective orders go on.{_at_restart(report)}\nNext: nextbar resume {name}")


def print_resume(report: PauseReport) -> None:
    """That entries are allowed again."""
    name = report.run.name
    if report.already:
        say(f"Run {name} was not paused: nothing has changed.")
        return
    say(f"Run {name} may open positions again, unless something else pauses it.{_at_restart(report)}")


def _at_restart(report: PauseReport) -> str:
    return "" if report.pid else " No process trades it now: this holds when it goes on."


def print_latencies(latencies: Mapping[str, Mapping[str, float]]) -> None:
    """How long decisions and orders took, in milliseconds."""
    names = {"decide_ms": "bar to decision", "send_ms": "decision to the broker's answer"}
    for key, name in names.items():
        if key in latencies:
            say(f"{name}: p50 {latencies[key]['p50']:.2f} ms, p99 {latencies[key]['p99']:.2f} ms")


def span_name(name: str) -> SpanName:
    """A span's name from the command line."""
    if name not in get_args(SpanName):
        raise ConfigError(f"--span: expected {', '.join(get_args(SpanName))}, found {name}")
    return cast(SpanName, name)


@contextmanager
def stdout_kept() -> Iterator[None]:
    """Whatever a strategy prints, or a program that it starts, goes to stderr: stdout is for the one object."""
    sys.stdout.flush()
    with redirect_stdout(sys.stderr):
        try:
            kept = os.dup(1)
        except OSError:  # there is no stdout
            yield
            return
        os.dup2(2, 1)
        try:
            yield
        finally:
            os.dup2(kept, 1)
            os.close(kept)


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal, and nothing anywhere else."""
    if not is_interactive():
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_console(), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_metrics(metrics: Mapping[str, Mapping[str, float | int | None]]) -> None:
    """The main figures of a run beside buy-and-hold and the benchmark, and its forecast beside naive ones."""
    from engine.report.catalogue import metric

    columns = {"strategy": "strategy", "buy_and_hold": "buy-and-hold", "benchmark": "benchmark"}
    present = [name for name in columns if metrics.get(name)]
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in present:
        table.add_column(columns[name], justify="right")
    for key in _SHOWN:
        table.add_row(metric(key).label, *(metric(key).text(metrics[name].get(key)) for name in present))
    _console().print(table)
    if metrics.get("forecast"):
        print_evaluation(metrics["forecast"])


def print_evaluation(evaluation: Mapping[str, float | int | None]) -> None:
    """Scores of a forecast beside the naive forecasts'."""
    from engine.report.catalogue import baseline_key, metric

    table = Table(box=None, pad_edge=False)
    for name in ("forecast", "model", *_BASELINES.values()):
        table.add_column(name, justify="left" if name == "forecast" else "right")
    for key in _SCORES:
        values = [evaluation.get(key), *(evaluation.get(baseline_key(key, name)) for name in _BASELINES)]
        table.add_row(metric(key).label, *(metric(key).text(value) for value in values))
    for key in ("coverage_pct", "nominal_coverage_pct"):
        table.add_row(metric(key).label, metric(key).text(evaluation.get(key)))
    _console().print(table)


def print_training(report: TrainingReport) -> None:
    """What was trained, in a sentence, and how an ensemble weighs its members."""
    kept = [f"{report.parameters:,} parameters"]
    if report.folds:
        kept.insert(0, f"{len(report.folds)} folds, decides from {report.folds[0].takes_over}")
    elif report.members:
        kept.insert(0, f"{len(report.members)} members")
    elif report.epochs:
        kept.insert(0, f"best of {report.epochs} epochs: {report.best_epoch}")
    for ahead, figures in report.more_evaluations.items():
        _say_horizon(ahead, figures)
    say(f"{'Already trained' if report.reused else 'Trained'} ({'; '.join(kept)}).")
    for horizon, weights in report.weights.items():
        each = ", ".join(f"{kind} {weight:.2f}" for kind, weight in zip(report.members, weights, strict=True))
        none = "" if any(weights) else ": no forecast helped out of fold, so the ensemble expects no change"
        say(f"Weights at horizon {horizon}: {each}{none}.")


def _say_horizon(ahead: str, evaluation: Mapping[str, float | None]) -> None:
    """The main figures of a horizon that is not traded."""
    from engine.report.catalogue import metric

    keys = {"hit_rate_pct": "hit rate", "r2_out_of_sample": "R\u00b2", "mase": "MASE", "coverage_pct": "coverage"}
    figures = ", ".join(f"{name} {metric(key).text(evaluation.get(key))}" for key, name in keys.items())
    say(f"Beside it, {ahead} bar{'' if ahead == '1' else 's'} ahead: {figures}.")


def print_comparison(comparison: Comparison) -> None:
    """The main figures of several runs; the best of each is marked with a star."""
    from engine.report.catalogue import metric

    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    count = len(comparison.labels)
    for label, unlike in zip(comparison.labels, comparison.unlike, strict=True):
        table.add_column("\n".join([label, *unlike]), justify="right")
    for title, _ in comparison.passive:
        table.add_column(title, justify="right")
    for row in comparison.rows:
        if row.key in _SHOWN:
            values = [metric(row.key).text(value) for value in row.values]
            marked = [f"{text} *" if i in row.best and i < count else text for i, text in enumerate(values)]
            table.add_row(metric(row.key).label, *marked)
    _console().print(table)


_STYLES = {"ok": "green", "differs": "yellow", "skipped": "dim", "failed": "red"}


@contextmanager
def status(title: str) -> Iterator[Callable[[str], None]]:
    """A line on a terminal that says what was done last, and nothing anywhere else."""
    if not is_interactive():
        yield lambda name: None
        return
    from rich.markup import escape

    with _console().status(title) as line:
        yield lambda name: line.update(f"{title}: {escape(name)}")


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """The checks by area; what is expected stands only beside what was not found so."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(max_width=22)
    table.add_column(ratio=1, overflow="fold")
    area = ""
    for check in _summed_up(diagnosis.checks):
        if check.area != area:
            area = check.area
            table.add_row("", Text(area.capitalize(), style="bold"), "")
        found = Text(check.found)
        if check.state == "differs":
            found.append(f"\nexpected: {check.expected}", style="dim")
        table.add_row(Text(check.state, style=_STYLES[check.state]), Text(check.name), found)
    console(width=100).print(table)
    counts = {state: sum(check.state == state for check in diagnosis.checks) for state in _STYLES}
    total = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    say(f"{len(diagnosis.checks)} checks: {total}.")


def _summed_up(checks: Sequence[Check]) -> Iterator[Check]:
    """Packages that are as required make one line, and so do checks that are skipped for one reason."""

    def same(check: Check) -> tuple[str, ...]:
        if check.state == "ok" and check.area == "packages":
            return check.area, "installed as required"
        if check.state == "skipped":
            return check.area, check.found
        return check.area, check.found, check.name

    for (_, found, *_), group in groupby(checks, key=same):
        alike = list(group)
        yield alike[0] if len(alike) == 1 else replace(alike[0], name=f"{len(alike)} checks", found=found)

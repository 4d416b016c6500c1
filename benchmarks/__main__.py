"""``python -m benchmarks``: measure beside peers, show a table, write JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import bar_loop, data, fischer_krauss, forecasting, latency, live, signals, training
from benchmarks.harness import Bound, Comparison, Disagreement, Latency, LeftOut, Level, Measured, Rate
from benchmarks.machine import machine_facts


class Name(StrEnum):
    """A benchmark, as ``--only`` takes it."""

    BAR_LOOP = "bar_loop"
    FORECASTING = "forecasting"
    TRAINING = "training"
    LIVE = "live"
    DATA = "data"
    LATENCY = "latency"
    SIGNALS = "signals"
    FISCHER_KRAUSS = "fischer_krauss"


_FULL: dict[Name, Callable[[], Iterator[Measured]]] = {
    Name.BAR_LOOP: lambda: bar_loop.measure(bar_loop.Size()),
    Name.FORECASTING: lambda: forecasting.measure(forecasting.Size()),
    Name.TRAINING: lambda: training.measure(training.Size()),
    Name.LIVE: lambda: live.measure(live.Size()),
    Name.DATA: lambda: data.measure(data.Size()),
    Name.LATENCY: lambda: latency.measure(latency.Size()),
    Name.SIGNALS: lambda: signals.measure(signals.Size()),
    Name.FISCHER_KRAUSS: lambda: fischer_krauss.measure(fischer_krauss.Size()),
}
_QUICK: dict[Name, Callable[[], Iterator[Measured]]] = {
    Name.BAR_LOOP: lambda: bar_loop.measure(
        bar_loop.Size(bars=2_000, symbols=2, bars_a_symbol=500, rounds=1, peer_rounds=1)
    ),
    Name.FORECASTING: lambda: forecasting.measure(
        forecasting.Size(bars=300, rounds=1, slow_rounds=1, latency_calls=10)
    ),
    Name.TRAINING: lambda: training.measure(training.Size(windows=120, epochs=1, rounds=1)),
    Name.LIVE: lambda: live.measure(live.Size(bars=60, rounds=1, replayed=60, daily=60)),
    Name.DATA: lambda: data.measure(data.Size(symbols=5, sessions=60, rounds=1)),
    Name.LATENCY: lambda: latency.measure(latency.Size(bars=150, rounds=1, calls=2, kinds=("gru", "mlp"))),
    Name.SIGNALS: lambda: signals.measure(signals.Size(planted=signals.TINY, seeds=1, kinds=("mlp", "ridge"))),
    Name.FISCHER_KRAUSS: lambda: fischer_krauss.measure(fischer_krauss.TINY),
}


def main(
    only: Annotated[list[Name] | None, typer.Option(help="Measure this one; may be given several times.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes: does it work, not how fast.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything here, too.")] = None,
    bars: Annotated[
        Path | None, typer.Option(help="For data and fischer_krauss: this Parquet file instead of what there is.")
    ] = None,
) -> None:
    """Measure nextbar beside its peers: the bar loop, forecasting, training, live trading, data, kinds of models."""
    people = Console(stderr=True)
    machine = machine_facts()
    benchmarks = _QUICK if quick else _FULL
    measured: list[Measured] = []
    try:
        for name in only or list(Name):
            with people.status(f"{name.value}: measuring"):
                for each in benchmarks[name]() if bars is None else _of(name, bars, benchmarks, quick=quick):
                    measured.append(each)
                    people.print(f"  {each.benchmark}: {each.case}", highlight=False, style="dim")
    except Disagreement as error:
        people.print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(1) from None
    _show(_table_console(), machine, measured, quick=quick)
    if json_file is not None:
        _write(json_file, {"machine": machine, "quick": quick, "results": [_with_kind(each) for each in measured]})
        people.print(f"written: {json_file}", highlight=False)


def _of(
    name: Name, bars: Path, benchmarks: dict[Name, Callable[[], Iterator[Measured]]], *, quick: bool
) -> Iterator[Measured]:
    """A benchmark on bars of the user's own, where it takes some."""
    if name is Name.DATA:
        return data.measure(data.Size(path=bars))
    if name is Name.FISCHER_KRAUSS:
        return fischer_krauss.measure(replace(fischer_krauss.QUICK if quick else fischer_krauss.Size(), path=bars))
    return benchmarks[name]()


def _table_console() -> Console:
    """As wide as the table where nobody is looking: in a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def _show(console: Console, machine: dict[str, Any], measured: list[Measured], *, quick: bool) -> None:
    title = "Quick sizes: these ratios mean nothing" if quick else "nextbar beside its peers, in one run"
    table = Table(title=title, caption="ratio: our speed over the peer's, best round of each (lowest to highest round)")
    for heading in ("", "against"):
        table.add_column(heading)
    for heading in ("ours", "peer", "ratio", "goal"):
        table.add_column(heading, justify="right")
    before = ""
    for each in measured:
        if each.benchmark != before:
            table.add_section()
            table.add_row(f"[bold]{each.benchmark}[/bold]")
            before = each.benchmark
        table.add_row(f"  {each.case}", *_figures(each))
    console.print(table)
    load = machine["load_average"]
    console.print(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['torch_threads']} torch threads, "
        f"Python {machine['python']}, load average before: {'unknown' if load is None else load}",
        highlight=False,
    )


def _figures(each: Measured) -> tuple[str, ...]:
    if isinstance(each, Latency):
        return (
            "",
            f"p50 {each.p50_ms:.2f} ms\np99 {each.p99_ms:.2f} ms",
            "",
            "",
            _goal(each, each.goal_ms, "ms at most"),
        )
    if isinstance(each, Rate):
        goal = f"{each.goal:,.0f} {'[green]reached' if each.per_second >= each.goal else '[red]missed'}[/]"
        return "", f"{each.per_second:,.0f} {each.unit}/s", "", "", goal
    if isinstance(each, Bound):
        kept = "[green]kept" if each.value <= each.at_most else "[red]missed"
        return "", f"{each.value:.2f} {each.unit}", "", "", f"{each.at_most:.2f} {kept}[/]"
    if isinstance(each, Level):
        return "", f"{each.value:.2f} {each.unit}", "", "", _goal(each, each.at_least, "at least")
    if isinstance(each, LeftOut):
        return (f"left out: {each.reason}",)
    low, high = min(each.round_ratios), max(each.round_ratios)
    goal = "" if each.goal is None else f"{each.goal:.2f} {'[green]reached' if each.reached else '[red]missed'}[/]"
    return (
        each.peer,
        f"{each.ours_per_second:,.0f} {each.unit}/s",
        f"{each.peer_per_second:,.0f} {each.unit}/s",
        f"{each.ratio:.2f} ({low:.2f} to {high:.2f})",
        goal,
    )


def _goal(each: Latency | Level, limit: float | None, words: str) -> str:
    return "" if limit is None else f"{limit:.2f} {words} {'[green]reached' if each.reached else '[red]missed'}[/]"


def _with_kind(each: Measured) -> dict[str, Any]:
    kinds: dict[type, str] = {
        Comparison: "comparison",
        Latency: "latency",
        Rate: "rate",
        Bound: "bound",
        Level: "level",
        LeftOut: "left_out",
    }
    return {"kind": kinds[type(each)], **each.as_json()}


def _write(path: Path, content: dict[str, Any]) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    typer.run(main)

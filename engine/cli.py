"""The command line: one function a command. It parses, calls one use case, and prints; there is no logic here.

People read stderr: progress, tables, sentences. Data goes to stdout: with ``--json``, exactly one JSON object. Heavy
imports happen inside the commands, so that ``nextbar --help`` is quick.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from engine import cli_data, cli_models, commands
from engine.commands import FAILED, INTERRUPTED, RUNS, AsJson, Config, Overrides, RunName, WhichPaperRun

app = typer.Typer(
    name="nextbar",
    help="Train a price forecast, backtest it honestly, and trade it on paper with the same strategy.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(cli_data.app, name="data")

command = commands.command(app)


@command
def train(
    config: Config,
    *,
    overrides: Overrides = None,
    force: Annotated[bool, typer.Option("--force", help="Train even if this bundle is there already.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train the run file's model and write its bundle, scored beside naive forecasts."""
    from engine import terminal
    from engine.run_file import load_config
    from engine.training import train

    resolved = load_config(config, overrides or ())
    report = train(
        resolved, now=datetime.now(UTC), progress=terminal.is_interactive(), force=force, on_note=terminal.say
    )
    for remark in report.remarks:
        terminal.warn(remark)
    if as_json:
        terminal.print_json(report)
        return
    terminal.print_evaluation(report.evaluation)
    terminal.print_training(report)
    terminal.wrote(report.path, following=f"nextbar backtest {config}")


command(cli_models.models)
command(cli_models.tune)


@command
def backtest(
    config: Config,
    *,
    overrides: Overrides = None,
    span: Annotated[
        str, typer.Option(metavar="NAME", help="test; or train or validate, which marks the run IN-SAMPLE.")
    ] = "test",
    as_json: AsJson = False,
) -> int:
    """Run the strategy over the test span beside buy-and-hold, and write the run folder with its report."""
    from engine import terminal
    from engine.backtest import backtest
    from engine.errors import RiskHalt
    from engine.run_file import load_config

    resolved = load_config(config, overrides or ())
    with terminal.progress("backtest") as on_progress, terminal.stdout_kept():
        report = backtest(resolved, now=datetime.now(UTC), span=terminal.span_name(span), on_progress=on_progress)
    for remark in report.remarks:
        terminal.warn(remark)
    if as_json:
        terminal.print_json(report)
    else:
        terminal.print_metrics(report.metrics)
    if report.halted:
        terminal.warn(f"trading stopped: {report.halted}")
    terminal.wrote(report.run / "report.html", following=f"nextbar compare {report.run.name} RUN")
    return RiskHalt.exit_code if report.halted else 0


@command
def paper(
    config: Config,
    *,
    overrides: Overrides = None,
    replay: Annotated[
        bool, typer.Option("--replay", help="Trade on the embedded exchange, which replays the test span; no keys.")
    ] = False,
    speed: Annotated[
        str | None,
        typer.Option(metavar="SPEED", help="Of a replay, to watch it: 5/s (bars a second), 60x (real time), or max."),
    ] = None,
    new: Annotated[
        bool, typer.Option("--new", help="Begin another run; an earlier one that was cut off is left as it is.")
    ] = False,
    accept_broker: Annotated[
        bool,
        typer.Option("--accept-broker", help="Where journal and account differ, go on from what the broker says."),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Trade the strategy on paper: at Alpaca with keys, or on the embedded exchange with --replay."""
    from engine import terminal
    from engine.errors import RiskHalt
    from engine.paper import paper
    from engine.run_file import load_config
    from engine.watch import watching

    resolved = load_config(config, overrides or ())
    pace = terminal.pace_seconds(speed, resolved.data.timeframe, replay=replay)
    with watching() as on_status, terminal.stdout_kept():
        report = paper(
            resolved,
            now=datetime.now(UTC),
            replay=replay,
            new=new,
            accept_broker=accept_broker,
            pace_seconds=pace,
            on_status=on_status,
            on_remark=terminal.warn,
        )
    for remark in report.remarks:
        terminal.warn(remark)
    if as_json:
        terminal.print_json(report)
    elif report.metrics:
        terminal.print_metrics(report.metrics)
        terminal.print_latencies(report.latency_ms)
    if report.halted:
        terminal.warn(f"trading stopped: {report.halted}")
    stopped = report.status == "stopped"
    following = f"nextbar twin {report.run.name}"
    if stopped:
        following = f"the same command, which goes on; or nextbar kill {report.run.name}, which closes its positions"
    if report.metrics:
        terminal.wrote(report.run / "report.html", following=following)
    if report.halted:
        return RiskHalt.exit_code
    return INTERRUPTED if stopped else 0


@command
def twin(run: RunName, *, as_json: AsJson = False) -> int:
    """Go through a paper run once more from its journal, name the first difference, and weigh its fills."""
    from engine import terminal
    from engine.twin import twin

    report = twin(run, root=RUNS)
    if as_json:
        terminal.print_json(report)
    else:
        terminal.print_twin(report)
    return 0 if report.verdict == "identical" else FAILED


@command
def exchange(
    config: Config,
    *,
    overrides: Overrides = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 for any free one.")] = 8181,
    speed: Annotated[
        str, typer.Option(metavar="SPEED", help="1x (real time), 60x, max, or lock-step (moved by its client).")
    ] = "60x",
    state: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the exchange's state here, and go on from it.")
    ] = None,
    faults: Annotated[
        str | None,
        typer.Option(metavar="FAULTS", help="Do this wrong: kind@step,kind@step, or seed=42,count=8,kinds=all."),
    ] = None,
) -> None:
    """Serve the run file's test span as an Alpaca-compatible exchange on this machine, to practise on."""
    from engine import terminal
    from engine.exchange.faults import Faults
    from engine.run_file import load_config
    from engine.serving import PRACTICE, serve

    resolved = load_config(config, overrides or ())
    serve(
        resolved,
        port=port,
        speed=terminal.exchange_speed(speed),
        state=state,
        keys=PRACTICE,
        faults=None if faults is None else Faults.parse(faults),
        on_ready=terminal.print_exchange,
    )


@command
def report(run: RunName, *, as_json: AsJson = False) -> None:
    """Write the report of a run anew from its folder; of a paper run, also while it goes on."""
    from engine import terminal
    from engine.reporting import rewrite_report

    written = rewrite_report(run, root=RUNS)
    if as_json:
        terminal.print_json(written)
        return
    terminal.print_metrics(written.metrics)
    terminal.wrote(written.report, following=f"nextbar compare {written.run.name} RUN")


@command
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Two runs or more: folders or names.")],
    *,
    baseline: Annotated[
        str | None, typer.Option(metavar="RUN", help="The run the others are measured against; the first by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare finished runs side by side on one page."""
    from engine import terminal
    from engine.compare import compare

    report = compare(runs, root=RUNS, now=datetime.now(UTC), baseline=baseline)
    if as_json:
        terminal.print_json(report.to_json())
        return
    terminal.print_comparison(report.comparison)
    for sentence in report.headline:
        terminal.say(sentence)
    terminal.wrote(report.path, following="open it in a browser")


@command
def config(config: Config, *, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Print the run file with every default filled in."""
    from engine import terminal
    from engine.run_file import load_config
    from engine.sections import dump

    resolved = dump(load_config(config, overrides or ()))
    if as_json:
        terminal.print_json(resolved)
    else:
        terminal.print_yaml(resolved)


@command
def doctor(
    config: Annotated[
        Path | None, typer.Argument(metavar="CONFIG", help="A run file to check too, and to ask the broker about.")
    ] = None,
    *,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> int:
    """Check this machine, and with keys every assumption about the broker; nothing is traded or changed."""
    from engine import terminal
    from engine.doctor import doctor

    with terminal.status("checking") as on_check:
        diagnosis = doctor(config, overrides or (), on_check=lambda check: on_check(check.name))
    if as_json:
        terminal.print_json({"ok": diagnosis.ok, "checks": [asdict(check) for check in diagnosis.checks]})
    else:
        terminal.print_diagnosis(diagnosis)
    return diagnosis.exit_code


@command
def kill(run: WhichPaperRun = None, *, as_json: AsJson = False) -> int:
    """Stop a paper run for good: cancel its orders, close its positions, and let it trade no more."""
    from engine import terminal
    from engine.kill import kill

    done = kill(run, root=RUNS, now=datetime.now(UTC), say=terminal.say)
    if as_json:
        terminal.print_json(done)
    terminal.print_kill(done, tables=not as_json)
    return 0 if done.safe else FAILED


@command
def pause(run: WhichPaperRun = None, *, as_json: AsJson = False) -> None:
    """Let a paper run open no more positions; exits and protective orders go on, until nextbar resume."""
    from engine import terminal
    from engine.kill import pause

    done = pause(run, root=RUNS, now=datetime.now(UTC))
    if as_json:
        terminal.print_json(done)
        return
    terminal.print_pause(done)


@command
def resume(run: WhichPaperRun = None, *, as_json: AsJson = False) -> None:
    """Let a paused paper run open positions again."""
    from engine import terminal
    from engine.kill import resume

    done = resume(run, root=RUNS)
    if as_json:
        terminal.print_json(done)
        return
    terminal.print_resume(done)


def main() -> None:
    """Entry point of the ``nextbar`` script."""
    signal.signal(signal.SIGTERM, _terminated)
    try:
        app()
    except BaseException as error:
        if not _interrupted(error):
            raise
        # Also where it came in the middle of an import, which then fails with an error of its own.
        sys.exit(INTERRUPTED)


def _terminated(number: int, frame: FrameType | None) -> None:
    """Ends the process as Ctrl-C would."""
    raise KeyboardInterrupt


def _interrupted(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


if __name__ == "__main__":
    main()

"""The commands of ``nextbar data``, one function each, as in ``engine.cli``."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from engine import commands
from engine.commands import AsJson, Config, Overrides

app = typer.Typer(
    help="Fetch bars into the cache, list what it holds, and check bars.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

command = commands.command(app)


@command
def fetch(config: Config, *, overrides: Overrides = None, as_json: AsJson = False) -> int:
    """Bring the cache up to date with the run file's bars; of files, keep what was read from them."""
    from engine import terminal
    from engine.data_fetch import fetch_data
    from engine.run_file import load_config
    from engine.terminal_data import print_fetch

    resolved = load_config(config, overrides or ())
    with terminal.progress("fetching") as on_progress:
        report = fetch_data(
            resolved,
            now=datetime.now(UTC),
            on_progress=on_progress,
            on_wait=lambda: terminal.say("Another process fetches these bars; waiting for it to end."),
        )
    if as_json:
        terminal.print_json(report.to_json())
    else:
        print_fetch(report)
    terminal.wrote(report.folder, following=f"nextbar data check {config}")
    return report.exit_code


@command
def list_(*, as_json: AsJson = False) -> None:
    """List what the cache holds."""
    from engine import terminal
    from engine.data_fetch import list_data
    from engine.terminal_data import print_holdings

    holdings = list_data()
    if as_json:
        terminal.print_json({"cache": [holding.to_json() for holding in holdings]})
    elif holdings:
        print_holdings(holdings)
    else:
        terminal.say("The cache is empty.\nNext: nextbar data fetch CONFIG")


@command
def check(config: Config, *, overrides: Overrides = None, as_json: AsJson = False) -> int:
    """Look for everything that may be wrong with the run file's bars, and write a page that shows it."""
    from engine import terminal
    from engine.data_check import check_data
    from engine.run_file import load_config
    from engine.terminal_check import print_check

    resolved = load_config(config, overrides or ())
    with terminal.status("checking") as on_stage:
        done = check_data(resolved, now=datetime.now(UTC), on_stage=on_stage)
    if as_json:
        terminal.print_json(done.to_json())
    else:
        print_check(done)
    terminal.wrote(done.page, following="open it in a browser")
    return done.exit_code

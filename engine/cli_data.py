"""The commands of ``nextbar data``, one function each, as in ``engine.cli``."""

from __future__ import annotations

import typer

from engine import commands

app = typer.Typer(
    help="Fetch bars into the cache, list what it holds, and check bars.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

command = commands.command(app)

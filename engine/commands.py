"""What all commands share: how they end, the options that they have in common, and where they look.

Heavy imports happen inside the commands, so that ``nextbar --help`` is quick.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import NextbarError

INTERRUPTED = 130
FAILED = 1

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="The run file, such as configs/quickstart.yaml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Set a key of the run file; may be given more than once."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and no tables.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder or name, or latest.")]
WhichPaperRun = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="A paper run's folder or name; by default the one that trades, or was cut off."),
]

RUNS = Path("runs")

Use = Callable[..., int | None]


def command(app: typer.Typer) -> Callable[[Use], Callable[..., None]]:
    """Registers a function with ``app`` as a command whose errors end as one sentence and the exit code of their kind.

    The command has the function's name, less a last underscore, and its parameters, and ``--debug``; the integer it
    returns is the exit code.
    """
    return functools.partial(_registered, app=app)


def _registered(use: Use, *, app: typer.Typer) -> Callable[..., None]:
    @functools.wraps(use)
    def run(*args: Any, debug: bool = False, **kwargs: Any) -> None:
        as_json = kwargs.get("as_json", False)
        try:
            code = use(*args, **kwargs) or 0
        except KeyboardInterrupt as error:
            untouched = "interrupted; nothing half-written was left, and earlier runs are untouched"
            code = _fail(str(error) or untouched, INTERRUPTED, as_json)
        except NextbarError as error:
            _trace(debug)
            code = _fail(str(error), error.exit_code, as_json)
        except BrokenPipeError:
            # The reader of stdout has gone: there is nobody left to tell.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = FAILED
        except MemoryError:
            code = _fail("out of memory: use fewer symbols, a shorter span or a smaller batch", FAILED, as_json)
        except Exception as error:
            _trace(debug)
            code = _fail(
                f"unexpected {type(error).__name__}: {error}; this is a defect of nextbar, --debug shows where",
                FAILED,
                as_json,
            )
        raise typer.Exit(code)

    signature = inspect.signature(use, eval_str=True)
    parameters = [
        *signature.parameters.values(),
        inspect.Parameter("debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug),
    ]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    app.command(use.__name__.removesuffix("_"))(run)
    return run


def _trace(debug: bool) -> None:
    if debug:
        traceback.print_exc()


def _fail(sentence: str, code: int, as_json: bool) -> int:
    from engine import terminal

    terminal.fail(sentence)
    if as_json:
        terminal.print_json({"status": "failed", "error": sentence, "exit_code": code})
    return code

"""Which run a kill, a pause or a resumption is about, and the moment at which one person at a time speaks to it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import ConfigError, DataError, NextbarError, StorageError
from engine.live import locks
from engine.live.journal import FILE
from engine.report.run import find_run, list_runs, load_manifest

_OVER = ("completed", "halted")
_LOCK = "kill.lock"
_POLL_SECONDS = 0.05


class Chosen(NamedTuple):
    """A paper run: its folder, its manifest, and whether it goes on, or could."""

    folder: Path
    manifest: dict[str, Any]
    goes_on: bool


def chosen_run(reference: str | None, *, root: Path) -> Chosen:
    """The paper run that is meant.

    Args:
        reference: its folder or name, or ``latest``; None: the newest one that a process trades, or else that could go
            on, or else the newest.
        root: the folder of runs.

    Raises:
        ConfigError: there is no such run, or it is none on paper.
        DataError: its manifest is damaged; or, where none is named, that of a paper run which may be the one.
    """
    if reference is None or reference == "latest":
        return _newest(root)
    if not (Path(reference) / "manifest.json").is_file() and not (root / reference / "manifest.json").is_file():
        for run in _paper_runs(root):
            # A name may be that of backtests, too.
            if reference in (run.folder.name[17:], run.manifest.get("name")):
                return run
    folder = find_run(reference, root=root)
    manifest = load_manifest(folder)
    if manifest.get("kind") != "paper":
        raise ConfigError(f"{folder}: a {manifest.get('kind')}, which trades nothing; name a paper run{_named(root)}")
    return Chosen(folder, manifest, _goes_on(folder, manifest))


def _newest(root: Path) -> Chosen:
    waits = newest = None
    for folder in list_runs(root):
        try:
            run = _unless_damaged(folder)
        except DataError:
            if waits is None:
                raise
            continue
        if run is not None and _is_traded(folder):
            return run
        if run is not None and run.goes_on:
            waits = waits or run
        newest = newest or run
    newest = waits or newest
    if newest is None:
        raise ConfigError(f"{root}: there is no paper run; begin one with nextbar paper CONFIG --replay")
    return newest


def _unless_damaged(folder: Path) -> Chosen | None:
    """The paper run in a folder; None where it is another kind of run."""
    try:
        manifest = load_manifest(folder)
    except NextbarError as error:
        if not (folder / FILE).exists():
            return None
        # It may be the one that trades: another one must not be taken for it.
        raise DataError(
            f"{folder}: whether this paper run goes on cannot be told: {error}; bring its manifest back, or name the "
            "run that is meant"
        ) from error
    return Chosen(folder, manifest, _goes_on(folder, manifest)) if manifest.get("kind") == "paper" else None


def _paper_runs(root: Path) -> Iterator[Chosen]:
    for folder in list_runs(root):
        with suppress(NextbarError):
            manifest = load_manifest(folder)
            if manifest.get("kind") == "paper":
                yield Chosen(folder, manifest, _goes_on(folder, manifest))


def _goes_on(folder: Path, manifest: dict[str, Any]) -> bool:
    return manifest.get("status") not in _OVER or _is_traded(folder)


def _is_traded(folder: Path) -> bool:
    """Whether a process trades the run, or may."""
    with suppress(StorageError):
        return locks.holder(folder / FILE) is not None
    return True


def _named(root: Path) -> str:
    names = [run.folder.name for run, _ in zip(_paper_runs(root), range(3), strict=False)]
    return f", such as {', '.join(names)}" if names else ""


@contextmanager
def alone(folder: Path, *, seconds: float, say: Callable[[str], None]) -> Iterator[None]:
    """While this is entered, nobody else kills the run; another kill that is at work is waited for.

    Raises:
        StorageError: it is still at work after that many seconds.
    """
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError:
        yield  # a folder that cannot be written must not keep positions open
        return
    try:
        deadline, waits = time.monotonic() + seconds, False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StorageError(
                        f"another nextbar kill is at work on run {folder.name}, for more than {seconds:g} seconds; "
                        "end it, and kill the run again"
                    ) from None
                if not waits:
                    say("another nextbar kill is at work on it: waiting for that")
                waits = True
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(lock)

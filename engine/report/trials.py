"""The ledger of trials: every evaluation on a test span, for as long as the project lives.

It is what corrections for multiple testing count, so it only ever grows: deleting a run's folder does not delete its
trial.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import StorageError
from engine.report.run import plain

FILE = "trials.jsonl"


def append_trial(root: Path, trial: Mapping[str, Any]) -> None:
    """Append one trial to ``root/trials.jsonl``; see ``append_line``."""
    append_line(root / FILE, trial)


def append_line(path: Path, trial: Mapping[str, Any]) -> None:
    """Append one trial to a file: one JSON object on one line, on disk before this returns.

    Runs that end at the same moment do not mix their lines: each is a single write in append mode. After a line that a
    crash has torn, a new line is begun first, so that the torn one spoils nothing else.

    Raises:
        StorageError: the file cannot be written.
    """
    line = json.dumps(plain(trial), sort_keys=True, allow_nan=False, separators=(",", ":")) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            data = (("\n" if torn else "") + line).encode()
            written = os.write(descriptor, data)
            if written != len(data):
                raise OSError(f"only {written} of {len(data)} bytes were written")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(
            f"{path}: the trial could not be recorded ({error.strerror or error}); free some space or make the file "
            "writable"
        ) from error


def read_trials(root: Path) -> tuple[list[dict[str, Any]], int]:
    """The trials in order, and the number of lines skipped because a crash tore them.

    Raises:
        StorageError: the ledger is there and cannot be read.
    """
    return read_lines(root / FILE)


def read_lines(path: Path) -> tuple[list[dict[str, Any]], int]:
    """As ``read_trials``, of any file that ``append_line`` writes; nothing where there is none."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise StorageError(
            f"{path}: the trials could not be read ({error.strerror or error}); make it readable"
        ) from error
    trials: list[dict[str, Any]] = []
    torn = 0
    for line in filter(None, text.split(b"\n")):
        try:
            trial = json.loads(line)
        except (ValueError, RecursionError):
            torn += 1
            continue
        if isinstance(trial, dict):
            trials.append(trial)
        else:
            torn += 1
    return trials, torn

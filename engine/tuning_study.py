"""The folder of a search, ``tuning/<name>-<hash12>/``: its trials line by line, and the best found as a run file.

``trials.jsonl`` has a line a trial, the same bytes each time with one worker; ``durations.jsonl`` says how long each
took; ``study.yaml`` is what was asked, ``best.yaml`` the best so far.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from engine.config import RunConfig, Spans
from engine.data.bars import Bars
from engine.errors import StorageError
from engine.report.recording import portable
from engine.report.trials import append_line, read_lines
from engine.sections import digest, dump
from engine.tune_section import TuneConfig
from engine.tuning_space import Space
from engine.tuning_trials import Trial

TRIALS, DURATIONS, STUDY, BEST = "trials.jsonl", "durations.jsonl", "study.yaml", "best.yaml"
HASH_LENGTH = 12


def study_hash(config: RunConfig, tune: TuneConfig, bars: Bars, folds: Sequence[Spans], strategy_hash: str) -> str:
    """SHA-256 of what a trial's score depends on; how many trials are asked for, and how many at once, is none of it.

    Args:
        bars: without those of the test span.
        strategy_hash: of the strategy's source, where the strategy is judged, else empty.
    """
    resolved = dump(config)
    judged = ["model", "training"] + (["strategy", "broker", "risk"] if strategy_hash else [])
    asked = {key: value for key, value in dump(tune).items() if key not in ("trials", "workers")}
    members = None if bars.membership is None else bars.membership.digest
    parts = {key: resolved.get(key) for key in judged}
    if config.folds is not None:
        parts["folds"] = {"purge": config.folds.purge, "embargo": config.folds.embargo}
    return digest(parts, asked, [dump(spans) for spans in folds], bars.content_hash, members, strategy_hash)


class Study:
    """A search's folder, held by one process.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def others(self, name: str) -> tuple[str, ...]:
        """Folders of other searches of the same name."""
        start = f"{name}-"
        found = self.path.parent.glob(f"{start}*")
        return tuple(
            sorted(p.name for p in found if p != self.path and len(p.name) == len(start) + HASH_LENGTH and p.is_dir())
        )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes out for as long as this lasts.

        Raises:
            StorageError: another one is at it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StorageError(f"{self.path}: another process is at this search; wait for it, or stop it") from None
            yield
        finally:
            os.close(lock)

    def read(self, space: Space, *, folds: int) -> tuple[list[Trial], int]:
        """The trials so far, by number, of one told twice the first; and how many lines were left out.

        Those are lines that a crash has torn, and others that no trial of this space on so many folds can have left.
        """
        trials: dict[int, Trial] = {}
        lines, left_out = read_lines(self.path / TRIALS)
        for line in lines:
            try:
                trial = Trial.from_json(line)
            except (KeyError, TypeError, ValueError, OverflowError):
                left_out += 1
                continue
            if trial.may_be_of(space, folds=folds):
                trials.setdefault(trial.number, trial)
            else:
                left_out += 1
        return [trials[number] for number in sorted(trials)], left_out

    def append(self, trial: Trial, seconds: float) -> None:
        """Keep a trial; it is on the disk before this returns."""
        append_line(self.path / TRIALS, trial.to_json())
        append_line(self.path / DURATIONS, {"number": trial.number, "seconds": round(seconds, 3)})

    def write_study(self, config: RunConfig) -> None:
        """What was asked, where it is not there yet."""
        if not (self.path / STUDY).is_file():
            self._write(STUDY, "# What is searched here.\n", portable(config))

    def write_best(self, config: RunConfig, words: str) -> Path:
        """The best run file: complete, with absolute paths, so that it can be trained from here or anywhere."""
        return self._write(BEST, f"# {words}\n", portable(config))

    def _write(self, name: str, comment: str, values: Mapping[str, Any]) -> Path:
        path, temporary = self.path / name, self.path / f".{name}.new"
        text = comment + yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False, allow_unicode=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except OSError as error:
            raise _unwritable(path, error) from error
        return path


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: could not be written ({error.strerror or error}); free some space or make it writable"
    )

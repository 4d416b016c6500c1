"""Trials in several processes at once: each is sent choices as text and answers with trials as text."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Any

from engine.config import RunConfig
from engine.errors import NextbarError
from engine.tune_section import TuneConfig
from engine.tuning_folds import sealed_bars, tuning_folds
from engine.tuning_space import Space
from engine.tuning_trials import Job, Trial, Trier

_PATIENCE_SECS = 5.0


class Workers:
    """Processes that try choices; each loads the bars by itself, cut off where the search's are.

    Args:
        config: the run file.
        tune: its search.
        root: the working folder.
        data_hash: content hash of the search's bars; a worker that finds others refuses.
    """

    def __init__(self, config: RunConfig, tune: TuneConfig, *, root: Path, data_hash: str) -> None:
        setup = {
            # What the run file says, and no default, since another kind of model has others.
            "config": config.model_dump(mode="json", exclude_none=True, exclude_unset=True),
            "folder": str(config.folder.resolve()),
            "root": str(root.resolve()),
            "data_hash": data_hash,
        }
        context = get_context("spawn")  # torch's threads do not survive a fork
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for _ in range(tune.workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, json.dumps(setup)), daemon=True)
            process.start()
            theirs.close()  # so that its end is seen, and ours by it
            self._connections.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            if error is not None:
                process.terminate()
            process.join(_PATIENCE_SECS)
            if process.is_alive():
                process.kill()

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Trial, float]]:
        """The trials of at most as many jobs as there are workers, as they end.

        Raises:
            NextbarError: a worker ended by itself, or could not begin.
        """
        waiting = list(self._connections[: len(jobs)])
        for connection, job in zip(waiting, jobs, strict=True):
            self._send(connection, job)
        while waiting:
            for ready in wait(waiting):
                connection = self._connections[self._connections.index(ready)]  # type: ignore[arg-type]
                answer = self._answer(connection)
                if "error" in answer:
                    raise NextbarError(answer["error"])
                waiting.remove(connection)
                yield Trial.from_json(answer["trial"]), answer["seconds"]

    def _send(self, connection: Connection, job: Job) -> None:
        try:
            connection.send_bytes(job.to_text().encode())
        except OSError:
            self._gone(connection)

    def _answer(self, connection: Connection) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            self._gone(connection)
        return answer

    def _gone(self, connection: Connection) -> None:
        process = self._processes[self._connections.index(connection)]
        process.join(_PATIENCE_SECS)
        raise NextbarError(
            f"a worker of the search ended by itself (exit code {process.exitcode}; -9 is mostly a lack of memory); "
            "the trials so far are kept: run the same command again, with fewer workers"
        )


def _work(connection: Connection, setup: str) -> None:
    """Try what comes until nothing more does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the search's to answer
    import torch

    torch.set_num_threads(1)  # the processes share the cores
    try:
        trier = _trier(json.loads(setup))
    except NextbarError as error:
        connection.recv_bytes()
        connection.send_bytes(json.dumps({"error": str(error)}).encode())
        return
    try:
        while True:
            trial, seconds = trier.run(Job.from_text(connection.recv_bytes().decode()))
            connection.send_bytes(json.dumps({"trial": trial.to_json(), "seconds": seconds}).encode())
    except (EOFError, OSError):  # the search has ended, however it did
        return


def _trier(setup: dict[str, Any]) -> Trier:
    config = RunConfig.model_validate({**setup["config"], "folder": setup["folder"]})
    tune = config.tune
    if tune is None:
        raise NextbarError("a worker was sent a run file without a search")
    bars = sealed_bars(config, root=Path(setup["root"]))
    if bars.content_hash != setup["data_hash"]:
        raise NextbarError("the bars have changed while the search began; run the same command again")
    return Trier(Space.of(config, tune), tune, bars, tuning_folds(config, tune, bars))

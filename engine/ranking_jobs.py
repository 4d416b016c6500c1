"""What a ranking does for each fold, kind and seed: fit, forecast, trade. In processes of their own."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from engine.config import RunConfig
from engine.data.bars import Bars
from engine.errors import BundleError, ConfigError, NextbarError
from engine.preparation import Prepared, simulated
from models.bundle import Bundle, as_fitted_now, find_bundle
from models.bundle_files import load_bundle, write_bundle
from models.evaluation import forecast_frame
from models.fitting.bundles import fit_bundle
from models.forecaster import Forecaster
from strategies.loading import load_strategy
from strategies.rule import Context

CACHE = Path("bundles") / "ranked"
_SECONDS = ".seconds.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model to fit and to judge: ``config`` is the run file of its fold alone, with its model and its seed."""

    label: str
    fold: int
    seed: int
    config: RunConfig


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a job.

    Attributes:
        bundle: the folder of the fitted model. reused: it was there already.
        training_seconds: that fitting took when it was fitted; None where nobody noted it.
        parameters, memory, weights_hash: of the bundle.
        train_mean, train_naive_mae: mean label of its training span, and mean absolute label.
        forecasts: over the test span, see ``models.evaluation.forecast_frame``.
        equity: of the strategy at each bar end of the test span, after costs.
        traded: value bought and sold. halted: why a risk limit ended trading, or empty.
        strategy_hash: of the strategy's source.
    """

    job: Job
    bundle: Path
    reused: bool
    training_seconds: float | None
    parameters: int
    memory: int
    weights_hash: str
    train_mean: float
    train_naive_mae: float
    forecasts: pd.DataFrame
    equity: pd.Series
    traded: float
    halted: str
    strategy_hash: str


def run_jobs(jobs: Sequence[Job], bars: Bars, *, root: Path, processes: int, fresh: bool) -> Iterator[Outcome]:
    """The outcomes in the order of the jobs. Every fit has one thread, so that the number of processes changes nothing.

    Args:
        bars: all bars of the run file.
        root: the folder that holds ``bundles/``.
        processes: how many work side by side; with 1 it is this one.
        fresh: fit everything anew.

    Raises:
        NextbarError: see ``fit_bundle``, ``simulate``; names the kind and the fold. A process died.
        KeyboardInterrupt: on Ctrl-C; what was fitted is kept.
    """
    if processes == 1:
        with one_thread():
            for job in jobs:
                yield _run(job, bars, root, fresh)
        return
    pool = ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(bars, root, fresh),
    )
    try:
        yield from pool.map(_run_here, jobs)
    except BrokenProcessPool as error:
        raise NextbarError(
            "a process that fitted models died, perhaps for want of memory; what is fitted is kept: run the command "
            "again, with --processes 1 if it happens again"
        ) from error
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """torch with one thread, as every fit and every forecast of a ranking has it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_here: tuple[Bars, Path, bool] | None = None


def _begin(bars: Bars, root: Path, fresh: bool) -> None:
    """A process of the pool: Ctrl-C is its parent's to handle, and it does not outlive it."""
    global _here
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _here = bars, root, fresh


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_here(job: Job) -> Outcome:
    if _here is None:
        raise RuntimeError("expected a process that was begun")
    return _run(job, *_here)


def _run(job: Job, bars: Bars, root: Path, fresh: bool) -> Outcome:
    try:
        bundle, seconds, reused = _bundle_of(job.config, bars, root / CACHE, fresh)
        return _judged(job, bundle, seconds, reused, bars)
    except NextbarError as error:
        where = f"models.kinds.{job.label}, fold {job.fold + 1}, seed {job.seed}"
        raise type(error)(f"{where}: {error}") from error


def _bundle_of(config: RunConfig, bars: Bars, folder: Path, fresh: bool) -> tuple[Bundle, float | None, bool]:
    if not fresh and (kept := _kept(config, bars, folder)) is not None:
        return kept, _noted_seconds(kept.path), True
    start = time.perf_counter()
    bundle = fit_bundle(config, bars, root=folder)
    seconds = time.perf_counter() - start
    bundle = write_bundle(bundle)
    # Beside the bundle: how long it took is no part of what a model is.
    bundle.path.with_name(bundle.path.name + _SECONDS).write_text(json.dumps({"training_seconds": seconds}) + "\n")
    return bundle, seconds, False


def _kept(config: RunConfig, bars: Bars, folder: Path) -> Bundle | None:
    """The bundle of the same request, bars and versions, if an earlier ranking has left it."""
    try:
        bundle = load_bundle(find_bundle(config, folder))
    except (BundleError, ConfigError):
        return None
    return bundle if as_fitted_now(bundle, config, bars) else None


def _noted_seconds(path: Path) -> float | None:
    try:
        return float(json.loads(path.with_name(path.name + _SECONDS).read_text())["training_seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _judged(job: Job, bundle: Bundle, seconds: float | None, reused: bool, bars: Bars) -> Outcome:
    config, forecaster = job.config, Forecaster(bundle)
    strategy = load_strategy(config, Context.of(config, forecaster))
    prepared = Prepared(
        config=config,
        bars=bars,
        benchmark=None,
        forecaster=forecaster,
        strategy=strategy,
        warmup=max(config.data.warmup_bars, forecaster.memory),
        remarks=(),
    )
    used, start, _ = prepared.cut(config.spans.test)
    done = simulated(config, used, strategy.cls, strategy.arguments, start=start)
    known = {own.symbol: own.lines for own in done.forecasts if own.forecaster is forecaster}
    return Outcome(
        job=job,
        bundle=bundle.path,
        reused=reused,
        training_seconds=seconds,
        parameters=bundle.parameters,
        memory=bundle.record.memory,
        weights_hash=bundle.record.weights_hash,
        train_mean=bundle.record.train_mean,
        train_naive_mae=bundle.record.train_naive_mae,
        forecasts=forecast_frame(used, forecaster, config.spans.test, known=known),
        equity=done.equity["equity"],
        traded=sum(abs(fill.quantity * fill.price) for fill in done.ledger.fills),
        halted=done.halted,
        strategy_hash=strategy.source_hash,
    )

"""The use case behind ``nextbar report``: a run folder in, its page anew."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from engine.errors import DataError, StorageError
from engine.paper_models import forecaster_of_run
from engine.paper_record import record_paper
from engine.report.run import RUNNING, Metrics, Run, find_run, load_manifest, load_run
from engine.report.tear_sheet import render_report
from engine.run_file import load_config


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """The run's folder, the page in it, and the figures it shows."""

    run: Path
    report: Path
    metrics: Metrics


def rewrite_report(reference: str, *, root: Path) -> WrittenReport:
    """Render a run's page again and put it in the place of the old one, whole or not at all.

    The page of a paper run that is going on, or was cut off, shows what its journal holds so far.

    Raises:
        ConfigError: there is no such run.
        DataError: the run is damaged.
        StorageError: the page cannot be written; the old one is still there.
    """
    folder = find_run(reference, root=root)
    run = _so_far(folder, root) if load_manifest(folder).get("status") == RUNNING else load_run(folder)
    page = folder / "report.html"
    partial = folder / f".report.{os.getpid()}.partial"
    try:
        try:
            partial.write_text(render_report(run), encoding="utf-8", newline="\n")
            partial.replace(page)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{page}: the report could not be written ({error.strerror or error}); free some space or make the folder "
            "writable"
        ) from error
    return WrittenReport(run=folder, report=page, metrics=run.metrics)


def _so_far(folder: Path, root: Path) -> Run:
    config = load_config(folder / "config.yaml")
    forecaster = forecaster_of_run(folder, load_manifest(folder), config, root.parent)
    run = record_paper(folder, forecaster=forecaster)
    if run is None:
        raise DataError(f"{folder}: nothing was decided yet, so there is nothing to report; wait for the first bar")
    return run

"""The comparison: runs in, one page and one table out."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from engine.errors import ConfigError, StorageError
from engine.report.comparison import Comparison, compare_runs, distinct_labels
from engine.report.comparison_page import headline, render_comparison
from engine.report.run import find_run, load_run, plain, rename_to_free, stamp

FOLDER = "comparisons"


@dataclass(frozen=True, kw_only=True)
class ComparisonReport:
    """A comparison that has been written: the page's path, the runs' folders, the figures, and what they say."""

    path: Path
    runs: tuple[Path, ...]
    comparison: Comparison
    headline: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The comparison as one JSON-ready object."""
        compared = self.comparison
        count = len(compared.labels)
        figures: dict[str, Any] = plain(
            {
                "report": self.path,
                "headline": self.headline,
                "baseline": compared.labels[compared.baseline],
                "runs": [
                    {
                        "name": label,
                        "run": folder,
                        "unlike_baseline": compared.unlike[i],
                        "metrics": {row.key: row.values[i] for row in compared.rows},
                        "best": [row.key for row in compared.rows if i in row.best],
                        "difference": asdict(gap) if (gap := compared.differences[i]) is not None else None,
                    }
                    for i, (label, folder) in enumerate(zip(compared.labels, self.runs, strict=True))
                ],
                "passive": {
                    title: {row.key: row.values[count + i] for row in compared.rows if row.key in figures_of}
                    for i, (title, figures_of) in enumerate(compared.passive)
                },
                "config_differences": {
                    key: dict(zip(compared.labels, values, strict=True)) for key, values in compared.configs.items()
                },
            }
        )
        return figures


def compare(
    references: Sequence[str | Path], *, root: Path, now: datetime, baseline: str | None = None
) -> ComparisonReport:
    """Compare finished runs and write ``root/comparisons/<UTC time>/compare.html``.

    Args:
        references: at least two runs, each as :func:`engine.report.run.find_run` understands it.
        root: the folder of runs.
        now: the moment that names the comparison's folder.
        baseline: the run the others are measured against, one of the references; the first by default.

    Raises:
        ConfigError: fewer than two runs, the same one twice, a run that is not there, or a baseline not among them.
        DataError: a run is damaged.
        StorageError: the page cannot be written.
    """
    folders = [find_run(reference, root=root) for reference in references]
    position = _baseline(baseline, folders, root)
    runs = [load_run(folder) for folder in folders]
    labels = distinct_labels([run.name for run in runs], [folder.resolve().name for folder in folders])
    comparison = compare_runs(runs, labels=labels, baseline=position)
    home = root / FOLDER
    # The page lies in a folder of its own below ``home``, whatever counter its name gets.
    links = [quote(os.path.relpath(folder / "report.html", home / "page").replace(os.sep, "/")) for folder in folders]
    page = render_comparison(comparison, runs, links=links)
    path = _write(page, home, stamp(now)) / "compare.html"
    return ComparisonReport(path=path, runs=tuple(folders), comparison=comparison, headline=tuple(headline(comparison)))


def _baseline(baseline: str | None, folders: Sequence[Path], root: Path) -> int:
    resolved = [folder.resolve() for folder in folders]
    if len(resolved) < 2:
        raise ConfigError(f"compare: expected at least two runs, found {len(resolved)}; name another one")
    repeated = next((folder for folder in resolved if resolved.count(folder) > 1), None)
    if repeated is not None:
        raise ConfigError(f"compare: each run once, found {repeated.name} twice; name another one in its place")
    if baseline is None:
        return 0
    chosen = find_run(baseline, root=root).resolve()
    if chosen not in resolved:
        raise ConfigError(f"compare: the baseline must be one of the runs compared, found {baseline}; add it to them")
    return resolved.index(chosen)


def _write(page: str, home: Path, stem: str) -> Path:
    partial = home / f".{stem}.{os.getpid()}.partial"
    try:
        try:
            home.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            (partial / "compare.html").write_text(page, encoding="utf-8", newline="\n")
            return rename_to_free(partial, home, stem)
        except BaseException:
            with contextlib.suppress(OSError):
                shutil.rmtree(partial)
            raise
    except OSError as error:
        raise StorageError(
            f"{home}: the comparison could not be written ({error.strerror or error}); free some space or name a "
            "folder that can be written to"
        ) from error

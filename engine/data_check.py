"""The use case behind ``nextbar data check``: a run file in; what is wrong or odd with its bars out, as a folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.config import RunConfig
from engine.data.cleaning.checking import Checked, check_bars, shared_gap
from engine.data.cleaning.findings import findings_frame
from engine.data.sources import read_raw
from engine.errors import DataError
from engine.report.data_page import render_data_check
from engine.report.data_words import kind_rows, verdict
from engine.report.run import plain, rename_to_free, safe_name, stamp, stored, write_quality

PAGE = "check.html"


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """A check that has been written.

    Attributes:
        folder: with ``check.html``, and where there is anything in them ``findings.parquet`` and ``repairs.parquet``.
        checked: what was found.
        verdict: what it comes to, in a few sentences.
    """

    folder: Path
    checked: Checked
    verdict: tuple[str, ...]

    @property
    def page(self) -> Path:
        """The page."""
        return self.folder / PAGE

    @property
    def exit_code(self) -> int:
        """That of a ``DataError`` where loading the bars fails, else 0."""
        return DataError.exit_code if self.checked.refusals else 0

    def to_json(self) -> dict[str, Any]:
        """The check as one JSON-ready object."""
        checked = self.checked
        repairs = self.folder / "repairs.parquet"
        known: dict[str, Any] = plain(
            {
                "status": "refused" if checked.refusals else "ok",
                "verdict": self.verdict,
                "source": checked.raw.source,
                "timeframe": checked.raw.timeframe,
                "adjustment": (checked.bars or checked.raw).adjustment,
                "content_hash": None if checked.bars is None else checked.bars.content_hash,
                "symbols": len(checked.raw.frames),
                "bars_in_source": sum(len(frame) for frame in checked.raw.frames.values()),
                "bars": sum(len(frame) for frame in checked.frames.values()),
                "counts": {
                    row.kind: {
                        "bars": row.bars,
                        "symbols": row.symbols,
                        "dropped": row.dropped,
                        "repaired": row.repaired,
                        "flagged": row.flagged,
                        "policy": row.policy,
                        "refused": row.refused,
                        "worst": {"symbol": row.worst.symbol, "time": row.worst.time, "detail": row.worst.detail},
                    }
                    for row in kind_rows(checked)
                },
                "checked": checked.quality.checked,
                "refusals": [
                    {"kind": refusal.kind, "symbol": refusal.symbol, "sentence": refusal.sentence}
                    for refusal in checked.refusals
                ],
                "missing_of_all_symbols": shared_gap(checked.quality),
                "coverage": [
                    {
                        "symbol": own.symbol,
                        "first": own.first,
                        "last": own.last,
                        "bars": own.bars,
                        "dropped": own.dropped,
                        "missing": own.missing,
                        "expected": own.expected,
                        "missing_pct": own.missing_pct,
                    }
                    for own in checked.coverage
                ],
                "findings": findings_frame(checked.quality).to_dict("records"),
                "folder": self.folder,
                "page": self.page,
                "repairs": repairs if repairs.exists() else None,
            }
        )
        return known


def check_data(
    config: RunConfig, *, root: Path = Path(), now: datetime, on_stage: Callable[[str], None] = lambda name: None
) -> DataCheck:
    """Look for everything that may be wrong with the bars of a run file, and write it to ``checks/<UTC time>-<name>/``.

    Nothing is refused on the way: what loading would refuse is told with the rest.

    Args:
        config: the run file.
        root: the folder that holds ``checks/`` and the cache.
        now: the moment that names the check's folder.
        on_stage: is told what is being done.

    Raises:
        ConfigError, BrokerError: the source cannot be asked.
        DataError: a file cannot be read at all.
        StorageError: the folder could not be written; nothing of it is left.
    """
    on_stage("reading")
    raw = read_raw(config.data, config.folder, root=root, within=config.spans.extent)
    on_stage("cleaning")
    checked = check_bars(raw, config.data)
    on_stage("drawing")
    page = render_data_check(checked, name=config.name)
    return DataCheck(
        folder=_write(checked, page, root / "checks", f"{stamp(now)}-{safe_name(config.name)}"),
        checked=checked,
        verdict=tuple(verdict(checked)),
    )


def _write(checked: Checked, page: str, home: Path, stem: str) -> Path:
    partial = home / f".{stem}.{os.getpid()}.partial"
    with stored(home, "check"):
        try:
            home.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            write_quality(partial, findings_frame(checked.quality), checked.quality.repairs)
            (partial / PAGE).write_text(page, encoding="utf-8", newline="\n")
            return rename_to_free(partial, home, stem)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

"""A run and its folder: written at once or not at all, read back as it was; a paper run's is there from its start."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from engine.data.cleaning.findings import findings_frame, quality_from
from engine.data.quality import Quality
from engine.errors import ConfigError, DataError, StorageError
from engine.report import frames
from engine.report.hashes import fills_hash, orders_hash

Metrics = dict[str, dict[str, float | int | None]]

_FRAMES: Mapping[str, Mapping[str, frames.Kind]] = {
    "orders": frames.ORDERS,
    "fills": frames.FILLS,
    "trades": frames.TRADES,
    "forecasts": frames.FORECASTS,
    "bars": frames.BARS,
}
# What cleaning found in the bars and changed in them: a file each, where there was anything.
_QUALITY: Mapping[str, Mapping[str, frames.Kind]] = {"findings": frames.FINDINGS, "repairs": frames.REPAIRS}
RUNNING = "running"
_FOLDER = re.compile(r"^\d{8}T\d{6}Z-")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution, complete: what was asked, what was done, what came of it.

    Frames are brought to the columns and types of :mod:`engine.report.frames` on construction.

    Attributes:
        manifest: JSON-ready. The report reads ``kind``, ``name``, ``status`` (``completed`` or ``halted``), ``symbols``
            and the flags ``in_sample``, ``synthetic``, ``survivor_biased``, ``close_only``; a comparison reads
            ``hashes.data``. Every other key is kept and shown.
        config: the resolved run file.
        metrics: ``strategy``, ``benchmark``, ``buy_and_hold`` and ``forecast``; flat figures, None where undefined.
        equity: index ``time`` (UTC, bar end); equity, cash, gross_exposure (fraction of equity), buy_and_hold and
            benchmark (both scaled to the starting cash; NaN where there is none).
        orders: one row a submitted order, in order; ``time`` is the decision bar's end.
        fills: one row a fill; ``time`` is the filling bar's end; commission and slippage in account currency.
        trades: one row a round trip; ``exit_time`` is NaT and ``exit_price`` the mark while it is open; pnl is net of
            commissions.
        forecasts: one row a decision bar and symbol; log returns over the horizon; may be empty.
        bars: the bars of the period, long, so that the report needs nothing else.
        findings: what cleaning found in the bars, warm-up included; may be empty.
        repairs: what it changed, one row a value; may be empty.
    """

    manifest: dict[str, Any]
    config: dict[str, Any]
    metrics: Metrics
    equity: pd.DataFrame
    orders: pd.DataFrame
    fills: pd.DataFrame
    trades: pd.DataFrame
    forecasts: pd.DataFrame
    bars: pd.DataFrame
    findings: pd.DataFrame = field(default_factory=pd.DataFrame)
    repairs: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __post_init__(self) -> None:
        object.__setattr__(self, "equity", frames.typed_equity(self.equity))
        for name, columns in {**_FRAMES, **_QUALITY}.items():
            object.__setattr__(self, name, frames.typed(getattr(self, name), columns, name=name))

    @property
    def name(self) -> str:
        """The run file's name."""
        return str(self.manifest.get("name", "run"))

    @property
    def timeframe(self) -> str:
        """Such as ``1d`` or ``5m``."""
        return str(self.config.get("data", {}).get("timeframe", "1d"))


def open_run(
    root: Path,
    name: str,
    manifest: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    now: datetime,
    quality: Quality | None = None,
) -> Path:
    """Begin a run that goes on for long: its folder with a manifest of status ``running`` and its run file.

    Args:
        quality: of the bars that are known already; ``load_quality`` gives it back.

    Raises:
        StorageError: the folder cannot be written; nothing of it is left.
    """
    stem = f"{stamp(now)}-{safe_name(name)}"
    partial = root / f".{stem}.{os.getpid()}.partial"
    with stored(root):
        try:
            root.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            _write_json(partial / "manifest.json", {**manifest, "name": name, "status": RUNNING})
            _write_config(partial, config)
            if quality is not None:
                write_quality(partial, findings_frame(quality), quality.repairs)
            return rename_to_free(partial, root, stem)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def finish_run(run: Run, folder: Path) -> None:
    """Write everything of a run into its folder, which ``open_run`` has begun; the manifest last.

    Raises:
        StorageError: a file cannot be written; the folder is as it was, or has some of the new files.
    """
    from engine.report.tear_sheet import render_report

    report = render_report(run)
    partial = folder / f".{os.getpid()}.partial"
    with stored(folder):
        try:
            partial.mkdir()
            _write_files(run, partial, report)
            for path in sorted(partial.iterdir(), key=lambda path: path.name == "manifest.json"):
                path.replace(folder / path.name)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def close_run(folder: Path, status: str) -> None:
    """Say in the manifest how a run ended that has nothing to report."""
    with stored(folder):
        partial = folder / f".manifest.{os.getpid()}.partial"
        _write_json(partial, {**load_manifest(folder), "status": status})
        partial.replace(folder / "manifest.json")


def write_run(run: Run, root: Path, *, now: datetime) -> Path:
    """Write the run to ``root/<UTC time>-<name>/`` with its report, and return that folder.

    Everything is written to a hidden sibling folder which is then renamed: the run's folder is complete or absent,
    also after Ctrl-C. A name already taken gets a counter, ``-2``.

    Raises:
        StorageError: the folder cannot be written; nothing of it is left.
    """
    from engine.report.tear_sheet import render_report

    report = render_report(run)
    stem = f"{stamp(now)}-{safe_name(run.name)}"
    partial = root / f".{stem}.{os.getpid()}.partial"
    with stored(root):
        try:
            root.mkdir(parents=True, exist_ok=True)
            partial.mkdir()
            _write_files(run, partial, report)
            return rename_to_free(partial, root, stem)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


@contextlib.contextmanager
def stored(place: Path, what: str = "run") -> Iterator[None]:
    """What the system says of a folder that cannot be written, as one sentence."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{place}: the {what} could not be written ({error.strerror or error}); free some space or name a folder "
            "that can be written to"
        ) from error


def _write_files(run: Run, folder: Path, report: str) -> None:
    _write_json(folder / "manifest.json", run.manifest)
    _write_config(folder, run.config)
    _write_json(folder / "metrics.json", run.metrics)
    run.equity.to_parquet(folder / "equity.parquet", compression="zstd")
    for name in _FRAMES:
        getattr(run, name).to_parquet(folder / f"{name}.parquet", compression="zstd", index=False)
    write_quality(folder, run.findings, run.repairs)
    _write_text(folder / "report.html", report)


def write_quality(folder: Path, findings: pd.DataFrame, repairs: pd.DataFrame) -> None:
    """``findings.parquet`` and ``repairs.parquet``, where there is anything in them."""
    for (name, columns), frame in zip(_QUALITY.items(), (findings, repairs), strict=True):
        if len(frame):
            typed = frames.typed(frame, columns, name=name)
            typed.to_parquet(folder / f"{name}.parquet", compression="zstd", index=False)


def load_quality(folder: Path) -> Quality:
    """What cleaning found in a run's bars, from its folder.

    Raises:
        DataError: a file of it is damaged.
    """
    return quality_from(*(_read_quality(folder, name) for name in _QUALITY))


def _read_quality(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.parquet"
    return frames.typed(_read_frame(path) if path.exists() else pd.DataFrame(), _QUALITY[name], name=name)


def _write_config(folder: Path, config: Mapping[str, Any]) -> None:
    _write_text(folder / "config.yaml", yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True))


def rename_to_free(partial: Path, root: Path, stem: str) -> Path:
    """Rename a complete folder to ``root/stem``, or to the first of ``stem-2``, ``stem-3``, … that is free."""
    counter = 1
    while True:
        target = root / (stem if counter == 1 else f"{stem}-{counter}")
        try:
            partial.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not target.exists():
                raise
            counter += 1
        else:
            return target


def list_runs(root: Path) -> list[Path]:
    """The folders of the finished runs under ``root``, newest first."""
    with contextlib.suppress(OSError):
        found = [p for p in root.iterdir() if _FOLDER.match(p.name) and (p / "manifest.json").is_file()]
        return sorted(found, key=lambda p: (p.name[:16], _written(p), p.name), reverse=True)
    return []


def find_run(reference: str | Path, *, root: Path) -> Path:
    """The folder of a run: a path, a folder's name under ``root``, a run's name (its newest run), or ``latest``.

    Raises:
        ConfigError: there is no such run; names the newest ones.
    """
    text = str(reference)
    for folder in (Path(reference), root / text):
        if (folder / "manifest.json").is_file():
            return folder
    runs = list_runs(root)
    for folder in runs:
        # The manifest knows the name: in the folder's it may have a counter behind it.
        if text in ("latest", folder.name[17:]) or text == _mapping(folder / "manifest.json").get("name"):
            return folder
    if Path(reference).is_dir():
        raise DataError(f"{reference}: expected a run's folder, found no manifest.json in it; name another run")
    recent = ", ".join(p.name for p in runs[:5])
    hint = f"the newest are {recent}" if recent else f"{root} holds none yet; make one with nextbar backtest CONFIG"
    raise ConfigError(f"{text}: no such run; {hint}")


def load_run(reference: str | Path, *, root: Path = Path("runs")) -> Run:
    """Read a run back; ``reference`` as in :func:`find_run`.

    Raises:
        ConfigError: there is no such run.
        DataError: a file of it is missing or damaged; names the file.
    """
    folder = find_run(reference, root=root)
    manifest = load_manifest(folder)
    if manifest.get("status") == RUNNING:
        raise DataError(
            f"{folder}: this paper run is going on, or was cut off; `nextbar report {folder.name}` writes what its "
            "journal holds so far"
        )
    config = _mapping(folder / "config.yaml")
    metrics = _mapping(folder / "metrics.json")
    tables = {name: _read_frame(folder / f"{name}.parquet") for name in ("equity", *_FRAMES)}
    try:
        tables |= {name: _read_quality(folder, name) for name in _QUALITY}
        run = Run(manifest=manifest, config=config, metrics=metrics, **tables)
        _check_content(run)
    except DataError as error:
        raise DataError(f"{folder}: the run is damaged ({error}); run it again") from error
    return run


def load_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run's folder; a DataError where it is missing or damaged."""
    return _mapping(folder / "manifest.json")


def _check_content(run: Run) -> None:
    """What a page would show wrongly or not at all: figures that are none, and records that are not the run's."""
    for section, figures in run.metrics.items():
        for key, value in figures.items() if isinstance(figures, dict) else [("", figures)]:
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise DataError(f"metrics.json: {section}.{key}: expected a number or null, found {value!r}")
    for section, value in run.config.items():
        if section != "name" and not isinstance(value, dict):
            raise DataError(f"config.yaml: {section}: expected a section, found {value!r}")
    sent = run.orders[run.orders["status"] != "refused"]
    for name, found in (("orders_hash", orders_hash(sent)), ("fills_hash", fills_hash(run.fills))):
        if run.manifest.get(name) != found:
            raise DataError(f"manifest.json: {name} is not that of the recorded orders and fills")


def stamp(now: datetime) -> str:
    """The moment as a folder's name begins with it: ``20261123T074406Z``."""
    return now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def plain(value: Any) -> Any:
    """The value as JSON can hold it: numpy scalars unwrapped, NaN and infinities as None, times in ISO format."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(v) for v in value]
    if value is pd.NaT:
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime | date):
        return value.isoformat().replace("+00:00", "Z")
    return str(value) if isinstance(value, Path) else value


def safe_name(name: str) -> str:
    """A name as part of a folder's: letters, digits, and . _ - alone."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:64] or "run"


def _written(folder: Path) -> int:
    return (folder / "manifest.json").stat().st_mtime_ns


def _write_json(path: Path, value: Any) -> None:
    _write_text(path, json.dumps(plain(value), sort_keys=True, indent=2, allow_nan=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _mapping(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        value = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except FileNotFoundError:
        raise DataError(f"{path}: the run is incomplete, this file is missing; run it again") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise DataError(f"{path}: the file is damaged ({str(error).splitlines()[0]}); run it again") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected a mapping, found {type(value).__name__}; run it again")
    return value


def _read_frame(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise DataError(f"{path}: the run is incomplete, this file is missing; run it again") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: the file is damaged ({str(error).splitlines()[0]}); run it again") from error

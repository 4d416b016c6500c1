"""Bars from a file into the cache and out of it again: 505 symbols of five years of days, in one long Parquet file."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness import (
    Bound,
    Comparison,
    Contender,
    Disagreement,
    LeftOut,
    Measured,
    Turn,
    rounds,
    seconds_of,
    timed,
)
from engine.config import DataConfig
from engine.data.cache.imports import import_files, read_imported
from engine.data.cache.shelves import shelves
from engine.data.calendars import session_hours
from engine.data.cleaning.pipeline import clean

NAME = "data"
_ROOT = Path(__file__).resolve().parents[1]
_PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much to measure: a made-up file of so many symbols and sessions, or the file at ``path``."""

    symbols: int = 505
    sessions: int = 1_226
    rounds: int = 7
    path: Path | None = None


def measure(size: Size) -> Iterator[Measured]:
    """The file imported, cleaned and cached beside pandas alone, and read back beside a bare read of the same files."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        path = size.path or _written(place / "bars.parquet", size)
        section = DataConfig.model_validate(
            {"source": "files", "path": path, "symbols": "all", "cleaning": {"conflict": "drop"}}
        )
        straight = timed("pandas", lambda: _sorted(path))
        ours, peer = rounds(_importing(section, place), straight, count=size.rounds)
        rows = len(peer[0].result)
        for turn in ours:
            if turn.result["rows"] != rows:
                raise Disagreement(f"{path}: imported {turn.result['rows']} rows, and pandas reads {rows}")
        best = min(ours, key=lambda turn: turn.seconds).result
        yield Comparison(
            benchmark=NAME,
            case="import, clean and cache",
            peer="pandas reads and sorts",
            unit="rows",
            amount=rows,
            ours_seconds=seconds_of(ours),
            peer_seconds=seconds_of(peer),
            goal=0.05,
            facts=best,
        )
        yield from _read_back(section, place, rows, size)
        case = "import, clean and cache: peak memory"
        if Path("/proc/self/clear_refs").exists():
            peak = _peak(section, place)
            yield Bound(benchmark=NAME, case=case, unit="x the frame", value=peak, at_most=3.0)
        else:
            yield LeftOut(benchmark=NAME, case=case, reason="this system does not tell a process its peak")


def _written(path: Path, size: Size) -> Path:
    """Seeded random walks of so many symbols, as one long file, one session after another."""
    random = np.random.default_rng(11)
    days = pd.bdate_range("2013-02-08", periods=size.sessions * 2)
    days = days[~session_hours(days)[0].isna()][: size.sessions]
    steps = random.normal(0.0, 0.01, (size.sessions, size.symbols))
    close = (100.0 * np.exp(np.cumsum(steps, axis=0))).ravel()
    opened = close * (1.0 + random.normal(0.0, 0.002, len(close)))
    values = {
        "open": opened,
        "high": np.maximum(opened, close) * 1.003,
        "low": np.minimum(opened, close) * 0.997,
        "close": close,
    }
    names = [f"S{number:03}" for number in range(size.symbols)]
    table = pd.DataFrame(
        {
            "symbol": pd.Categorical(np.tile(names, size.sessions)),
            "date": np.repeat(days.to_numpy(), size.symbols),
            **{name: np.round(values[name], 4) for name in _PRICES},
            "volume": random.integers(10_000, 1_000_000, len(close)),
        }
    )
    table.to_parquet(path, index=False)
    return path


def _sorted(path: Path) -> pd.DataFrame:
    """What pandas alone does with it, under the names that the file has for symbol and day."""
    table = pd.read_parquet(path)
    return table.sort_values([str(table.columns[0]), str(table.columns[1])])


def _importing(section: DataConfig, place: Path) -> Contender[dict[str, Any]]:
    count = iter(range(10_000))

    def turn() -> Turn[dict[str, Any]]:
        cache = place / f"cache-{next(count)}"
        start = time.perf_counter()
        import_files(section, place, cache, fetched="2024-01-01")
        imported = time.perf_counter()
        raw = read_imported(section, place, cache)
        if raw is None:
            raise Disagreement(f"{section.path}: what was imported is not in the cache")
        back = time.perf_counter()
        clean(raw, section.cleaning)
        cleaned = time.perf_counter()
        result = {
            "rows": sum(len(frame) for frame in raw.frames.values()),
            "import_seconds": imported - start,
            "read_back_seconds": back - imported,
            "clean_seconds": cleaned - back,
        }
        return Turn(cleaned - start, result)

    return Contender("nextbar", turn)


def _read_back(section: DataConfig, place: Path, rows: int, size: Size) -> Iterator[Measured]:
    cache = place / "cache-0"
    (shelf,) = shelves(cache)
    symbols = list(shelf.manifest().entries)
    files = sorted(shelf.folder.glob("*.parquet"))
    ours, peer = rounds(
        timed("nextbar", lambda: shelf.read(symbols), clock=time.process_time),
        timed("pandas", lambda: [pd.read_parquet(file) for file in files], clock=time.process_time),
        count=3 * size.rounds,
    )
    if sum(len(series.frame) for series in ours[0].result.values()) != rows:
        raise Disagreement(f"{shelf.folder}: the cache does not give back all {rows} rows")
    yield Comparison(
        benchmark=NAME,
        case="from the cache, a frame a symbol",
        peer="pandas reads the same files",
        unit="rows",
        amount=rows,
        ours_seconds=seconds_of(ours),
        peer_seconds=seconds_of(peer),
        goal=0.5,
        facts={"segments": len(files), "megabytes": sum(file.stat().st_size for file in files) / 1e6},
    )


# Run in a process of its own, whose memory nothing else has touched.
_MEASURE = """
import json, sys
from pathlib import Path
import pandas as pd
from engine.config import DataConfig
from engine.data.cleaning.pipeline import clean
from engine.data.cache.imports import import_files, read_imported
section, place, cache, small = DataConfig.model_validate(json.loads(sys.argv[1])), *map(Path, sys.argv[2:])

def peak_bytes():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

def work(section, cache):
    import_files(section, place, cache, fetched="2024-01-01")
    clean(read_imported(section, place, cache), section.cleaning)

work(section.model_copy(update={"path": small}), cache / "small")  # calendars, libraries
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
before = peak_bytes()
work(section, cache / "whole")
print((peak_bytes() - before) / pd.read_parquet(section.path).memory_usage(deep=True).sum())
"""


def _peak(section: DataConfig, place: Path) -> float:
    """Memory that the work takes at most, over that of the file's own frame."""
    small = place / "small.parquet"
    table = pd.read_parquet(place / str(section.path))
    table[table[table.columns[0]] == table.iloc[0, 0]].to_parquet(small, index=False)
    arguments = [section.model_dump_json(exclude_none=True), str(place), str(place / "memory"), str(small)]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *arguments], capture_output=True, text=True, check=True, cwd=_ROOT
    )
    return float(done.stdout)

"""What ``nextbar doctor`` asks of this machine: versions, resources, folders and clocks. It leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from engine.checks import Differs, Question
from engine.data.cache.places import cache_folder

PACKAGES = "packages"
_NAME = "nextbar"
_GIB = 1024**3
_LEAST_MEMORY_GIB = 1.0
_LEAST_DISK_GIB = 1.0
_LEAST_SQLITE = (3, 8, 2)
_LEAST_COLUMNS = 80
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_TICKS = 10_000


def machine_questions(root: Path) -> list[Question]:
    """All of them; ``root`` is the folder in which runs/ and bundles/ are, or will be."""
    areas: dict[str, list[tuple[str, str, Callable[[], str]]]] = {
        "versions": [
            ("python", f"Python {_required_python()}", _python),
            ("nextbar", "an installed package", lambda: metadata.version(_NAME)),
        ],
        PACKAGES: [(r.name, str(r.specifier) or "any", _package(r)) for r in _requirements()],
        "machine": [
            ("system", "Linux or macOS", _system),
            ("cores", "one or more, and threads as they are set", _cores),
            ("memory", f"{_LEAST_MEMORY_GIB:g} GiB or more", _memory),
            ("time zones", "New York is UTC-5 in January and UTC-4 in July", _time_zones),
            ("SQLite", f"{'.'.join(map(str, _LEAST_SQLITE))} or newer, with a write-ahead log", _sqlite),
            ("monotonic clock", "never goes back, in steps of 1 ms or less", _monotonic),
            ("terminal", f"{_LEAST_COLUMNS} columns or more, and UTF-8", _terminal),
        ],
        "folders": [
            ("runs/", "a folder that can be written", lambda: _writable(root / "runs")),
            ("bundles/", "a folder that can be written", lambda: _writable(root / "bundles")),
            ("cache/", "a folder that can be written", lambda: _writable(cache_folder(root))),
            ("free space", f"{_LEAST_DISK_GIB:g} GiB or more", lambda: _space(root)),
            ("locks in runs/", "a second lock of one file is refused", lambda: _locks(_nearest(root / "runs"))),
            ("locks in cache/", "a second lock of one file is refused", lambda: _locks(_nearest(cache_folder(root)))),
            ("locks of accounts", "a second lock of one file is refused", lambda: _locks(Path(tempfile.gettempdir()))),
        ],
    }
    return [
        Question(name=name, area=area, expected=expected, ask=ask)
        for area, asked in areas.items()
        for name, expected, ask in asked
    ]


# --- versions ------------------------------------------------------------------------------------------------------


def _required_python() -> str:
    try:
        return metadata.metadata(_NAME)["Requires-Python"] or "any"
    except metadata.PackageNotFoundError:
        return "any"


def _python() -> str:
    found, required = platform.python_version(), _required_python()
    if required != "any" and not SpecifierSet(required).contains(found, prereleases=True):
        raise Differs(found)
    return f"{found} ({platform.python_implementation()})"


def _requirements() -> list[Requirement]:
    """What nextbar needs on this machine, without its extras."""
    try:
        named = metadata.requires(_NAME) or []
    except metadata.PackageNotFoundError:
        return []
    needed = (Requirement(line) for line in named)
    return [r for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]


def _package(requirement: Requirement) -> Callable[[], str]:
    def ask() -> str:
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            raise Differs("not installed; install nextbar anew") from None
        if not requirement.specifier.contains(found, prereleases=True):
            raise Differs(f"{found}; install nextbar anew")
        return found

    return ask


# --- machine -------------------------------------------------------------------------------------------------------


def _system() -> str:
    found = platform.platform(terse=True)
    if sys.platform not in ("linux", "darwin"):
        raise Differs(found)
    return found


def _cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings = [f"{name}={os.environ[name]}" for name in _THREADS if name in os.environ]
    return f"{usable} of {os.cpu_count()} cores; {', '.join(settings) or 'no thread setting in the environment'}"


def _memory() -> str:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.exists() else "max"
    usable = min(total, int(limit)) if limit.isdigit() else total
    found = f"{usable / _GIB:.1f} GiB"
    if usable < _LEAST_MEMORY_GIB * _GIB:
        raise Differs(found)
    return found


def _time_zones() -> str:
    zone = ZoneInfo("America/New_York")
    found = " and ".join(f"{datetime(2024, month, 2, tzinfo=zone):%z}" for month in (1, 7))
    if found != "-0500 and -0400":
        raise Differs(f"{found}; install the package tzdata anew")
    return found


def _sqlite() -> str:
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "check.sqlite")
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
        finally:
            connection.close()
    found = f"{sqlite3.sqlite_version}, journal mode {mode}"
    if sqlite3.sqlite_version_info < _LEAST_SQLITE or mode != "wal":
        raise Differs(found)
    return found


def _monotonic() -> str:
    ticks = [time.monotonic_ns() for _ in range(_TICKS)]
    resolution = time.get_clock_info("monotonic").resolution
    if any(later < earlier for earlier, later in pairwise(ticks)):
        raise Differs("it went back")
    if resolution > 1e-3:
        raise Differs(f"steps of {resolution * 1e3:g} ms")
    return f"steps of {resolution * 1e9:g} ns"


def _terminal() -> str:
    stderr = sys.__stderr__  # not what a progress line has put in its place
    if stderr is None or not stderr.isatty():
        return "none: what people read goes to a file or another program"
    columns = shutil.get_terminal_size().columns
    found = f"{columns} columns, {stderr.encoding}"
    if columns < _LEAST_COLUMNS or "utf" not in stderr.encoding.lower():
        raise Differs(found)
    return found


# --- folders -------------------------------------------------------------------------------------------------------


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that is there."""
    return next((place for place in (folder, *folder.absolute().parents) if place.exists()), folder)


def _writable(folder: Path) -> str:
    place = _nearest(folder)
    if not place.is_dir():
        raise Differs(f"{place} is no folder; move it away")
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"nextbar")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise Differs(f"{place} cannot be written ({error.strerror}); make it writable") from None
    return "there, and writable" if place == folder else "not there yet; it can be made"


def _space(root: Path) -> str:
    free = shutil.disk_usage(_nearest(root)).free
    found = f"{free / _GIB:.1f} GiB free"
    if free < _LEAST_DISK_GIB * _GIB:
        raise Differs(found)
    return found


def _locks(folder: Path) -> str:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".nextbar-check-") as first, open(first.name, "rb") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"a second one is refused, in {folder}"
    raise Differs(f"both were given in {folder}: two runs could not be kept apart; use a local disk")

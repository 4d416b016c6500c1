"""Files that are wrong in every way that files are wrong in, made from good ones by a seeded generator."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from vendor_samples import NEW_YORK, SAMPLES

SEED = 20_240_131
Random = np.random.Generator

VALUES = (
    *(
        "nan",
        "inf",
        "-inf",
        "1e400",
        "-1",
        "0",
        "-0.0",
        "1e-320",
        "1e5",
        "999999999999999999999",
        "9223372036854775808",
    ),
    *(
        "x",
        "$",
        "1.2M",
        "1,5",
        '"1,5"',
        "1_000",
        "0x1F",
        "+5",
        "--",
        "-",
        "True",
        "None",
        "#REF!",
        "=1+1",
        "\u0663",
        "\u00bd",
    ),
    *(
        "2024-01-31",
        "1492-10-12",
        "9999-12-31",
        "2024-02-30",
        "31/31/2024",
        "20240131",
        "0001-01-01",
        "1706711400",
        "now",
    ),
    *("09:30", "24:00", "2024-03-10T02:30", "2024-01-31T10:00Z", "2024-01-31T10:00+99:00", "\x00", "\ud7ff", "\u202e"),
)
PIECES = (
    b"",
    b"\x00",
    b'"',
    b'""',
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b",",
    b";",
    b"\t",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xff",
    b"'",
    b"\\",
)
SUFFIXES = (".csv", ".csv", ".csv", ".csv", ".txt", ".tsv", ".csv.gz", ".parquet", ".PQ", ".xlsx", ".gz", "")


SETTINGS: tuple[dict[str, Any], ...] = (
    {"timezone": NEW_YORK},
    {"timezone": "UTC"},
    {"stamp": "start"},
    {"stamp": "end"},
    {"date_format": "%d/%m/%Y"},
    {"columns": {"close": "Close", "open": "open"}},
    {"adjustment": "raw"},
    {"adjustment": "split"},
    {"adjustment": "all"},
    {"cleaning": {"missing_value": "repair", "impossible": "repair", "conflict": "drop", "off_session": "flag"}},
)


@dataclass(frozen=True)
class Case:
    """A bad file or folder, and what a run file would say of it."""

    path: Path
    settings: dict[str, Any]


def bad_file(number: int, folder: Path) -> Case:
    """The file with this number, the same each time; it is written below the folder."""
    random = np.random.default_rng([SEED, number])
    name = str(random.choice(list(SAMPLES)))
    sample = SAMPLES[name]
    settings: dict[str, Any] = {"symbols": (sample.symbol,), "timeframe": sample.timeframe, **sample.settings}
    if random.random() < 0.1:
        settings["symbols"] = "all"
    if random.random() < 0.1:
        settings["timeframe"] = str(random.choice(["1m", "5m", "1h", "1d", "1w"]))
    for _ in range(int(random.choice([0, 0, 0, 1, 2]))):
        settings |= SETTINGS[random.integers(len(SETTINGS))]
    home = folder / str(number)
    home.mkdir()
    kind = random.random()
    if kind < 0.65:
        return Case(_bad_text(_longer(sample.text, random), home, random), settings)
    if kind < 0.9:
        return Case(_bad_parquet(_table(sample.text), home, random), settings)
    return Case(_bad_folder(sample.text, sample.symbol, home, random), settings)


# --- text -------------------------------------------------------------------------------------------------------------


def _bad_text(text: str, home: Path, random: Random) -> Path:
    content = text.encode()
    for _ in range(int(random.choice([1, 1, 1, 2, 3]))):
        content = TEXT[random.integers(len(TEXT))](content, random)
    suffix = str(random.choice(SUFFIXES))
    if suffix == ".csv.gz" and random.random() < 0.8:
        content = gzip.compress(content)
        if random.random() < 0.3:
            content = _flipped(content, random) if random.random() < 0.5 else _cut(content, random)
    path = home / f"ACME{suffix}"
    path.write_bytes(content)
    return path


def _longer(text: str, random: Random) -> str:
    """Now and then the same rows many times over, which are duplicates and disorder."""
    if random.random() < 0.9:
        return text
    head, *rows = text.splitlines(keepends=True)
    return head + "".join(rows) * int(random.integers(2, 60))


def _flipped(content: bytes, random: Random) -> bytes:
    changed = bytearray(content)
    for at in random.integers(len(changed), size=int(random.integers(1, 6))) if changed else ():
        changed[at] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _cut(content: bytes, random: Random) -> bytes:
    return content[: int(random.integers(len(content) + 1))]


def _inserted(content: bytes, random: Random) -> bytes:
    at = int(random.integers(len(content) + 1))
    return content[:at] + PIECES[random.integers(len(PIECES))] * int(random.integers(1, 4)) + content[at:]


def _rows(change: Callable[[list[bytes], Random], list[bytes]]) -> Callable[[bytes, Random], bytes]:
    return lambda content, random: b"".join(change(content.splitlines(keepends=True), random))


def _shuffled(rows: list[bytes], random: Random) -> list[bytes]:
    return [rows[at] for at in random.permutation(len(rows))]


def _repeated(rows: list[bytes], random: Random) -> list[bytes]:
    return [row for row in rows for _ in range(int(random.integers(0, 3)))]


def _head_lost(rows: list[bytes], random: Random) -> list[bytes]:
    return rows[1:] if random.random() < 0.5 else rows[:1]


def _longer_rows(rows: list[bytes], random: Random) -> list[bytes]:
    return [row.rstrip() + b",1\n" if random.random() < 0.3 else row for row in rows]


def _other_separators(rows: list[bytes], random: Random) -> list[bytes]:
    return [row.replace(b",", PIECES[random.integers(7, 10)]) if random.random() < 0.5 else row for row in rows]


def _cells(change: Callable[[list[list[str]], Random], None]) -> Callable[[bytes, Random], bytes]:
    def apply(content: bytes, random: Random) -> bytes:
        cells = [line.split(",") for line in content.decode("utf-8", "replace").splitlines()]
        if cells:
            change(cells, random)
        return "\n".join(",".join(row) for row in cells).encode("utf-8", "replace")

    return apply


def _other_value(cells: list[list[str]], random: Random) -> None:
    for _ in range(int(random.integers(1, 5))):
        row = cells[random.integers(len(cells))]
        row[random.integers(len(row))] = str(random.choice(VALUES))


def _column_of_values(cells: list[list[str]], random: Random) -> None:
    at, value = int(random.integers(len(cells[0]))), str(random.choice(VALUES))
    for row in cells[1:]:
        if at < len(row):
            row[at] = value


def _column_lost(cells: list[list[str]], random: Random) -> None:
    at = int(random.integers(len(cells[0])))
    for row in cells:
        del row[at : at + 1]


def _column_renamed(cells: list[list[str]], random: Random) -> None:
    names = ("", "open", "Date", "symbol", "close", "split_ratio", "dividend", "adj close", "x" * 600, "a\tb", "Stück")
    cells[0][random.integers(len(cells[0]))] = str(random.choice(names))


def _columns_shuffled(cells: list[list[str]], random: Random) -> None:
    order = random.permutation(len(cells[0]))
    for row in cells if random.random() < 0.5 else cells[:1]:
        row[:] = [row[at] for at in order if at < len(row)]


def _huge_field(cells: list[list[str]], random: Random) -> None:
    row = cells[random.integers(len(cells))]
    row[random.integers(len(row))] = str(random.choice(["9", "x", '"', " "])) * int(random.choice([500, 140_000]))


def _other_encoding(content: bytes, random: Random) -> bytes:
    encoding = str(random.choice(["utf-16", "utf-32", "utf-16-le", "cp500", "latin-1"]))
    return content.decode("utf-8", "replace").encode(encoding, "replace")


def _emptied(content: bytes, random: Random) -> bytes:
    return (b"", b"\n", b" ", b"\x00" * 100, b"\xef\xbb\xbf", b"\xff\xfe")[random.integers(6)]


TEXT: tuple[Callable[[bytes, Random], bytes], ...] = (
    _flipped,
    _cut,
    _inserted,
    _rows(_shuffled),
    _rows(_repeated),
    _rows(_head_lost),
    _rows(_longer_rows),
    _rows(_other_separators),
    _cells(_other_value),
    _cells(_other_value),
    _cells(_column_of_values),
    _cells(_column_lost),
    _cells(_column_renamed),
    _cells(_columns_shuffled),
    _cells(_huge_field),
    _other_encoding,
    _emptied,
)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _table(text: str) -> pa.Table:
    """The vendor's file as pandas would save it; without a header, under the names that its columns would get."""
    frame = pd.read_csv(io.StringIO(text.removeprefix("\ufeff")), sep=None, engine="python")
    if "Date" in frame and len(frame) and str(frame["Date"].iloc[0])[:2] == "20":
        frame["Date"] = pd.to_datetime(frame["Date"], errors="coerce", utc=True)
    return pa.Table.from_pandas(frame, preserve_index=False)


def _odd_columns(count: int) -> list[pa.Array]:
    return [
        pa.array([Decimal("10.25")] * count, type=pa.decimal128(30, 12)),
        pa.array([[1.0, 2.0]] * count),
        pa.array([{"a": 1.0}] * count),
        pa.array([b"\xff\x00"] * count),
        pa.array([True, None, False, *[True] * count][:count]),
        pa.array(["10.5"] * count).dictionary_encode(),
        pa.array([None] * count),
        pa.array([2**64 - 1] * count, type=pa.uint64()),
        pa.array([np.float16(10.5)] * count, type=pa.float16()),
        pa.array(["x\ny" * 300] * count, type=pa.large_string()),
        pa.array(["2024-01-31", "1e400", "nan", None, *["5"] * count][:count]),
        pa.array([-100_000] * count, type=pa.int32()).cast(pa.date32()),
        pa.array([2**62] * count, type=pa.int64()).cast(pa.timestamp("ms")),
        pa.array([-(2**63)] * count, type=pa.int64()).cast(pa.timestamp("ns")),
        pa.array([10**18] * count, type=pa.int64()).cast(pa.timestamp("ns", "Mars/Olympus")),
        pa.array([1_706_711_400 + 300 * n for n in range(count)], type=pa.int64()).cast(pa.timestamp("s", "+05:30")),
        pa.array([5] * count, type=pa.int64()).cast(pa.duration("us")),
        pa.array([34_200] * count, type=pa.int32()).cast(pa.time32("s")),
        pa.array([10.0, np.inf, np.nan, -1.0, *[0.0] * count][:count]),
        pa.array([f"{n}" * 3 for n in range(count)]),
    ]


def _bad_parquet(table: pa.Table, home: Path, random: Random) -> Path:
    for _ in range(int(random.integers(0, 4))):
        change, at = random.random(), int(random.integers(table.num_columns))
        if change < 0.6:
            odd = _odd_columns(table.num_rows)
            table = table.set_column(at, table.column_names[at], odd[random.integers(len(odd))])
        elif change < 0.7 and table.num_columns > 1:
            table = table.remove_column(at)
        elif change < 0.8:
            table = table.append_column(table.column_names[at], table.column(at))
        elif change < 0.9:
            names = list(table.column_names)
            names[at] = str(
                random.choice(["", "open", "symbol", "a.b", "Stück", "x" * 600, "date", "__index_level_0__"])
            )
            table = table.rename_columns(names)
        else:
            table = table.slice(0, int(random.integers(table.num_rows + 1)))
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    content = sink.getvalue()
    change = random.random()
    if change < 0.25:
        content = _flipped(content, random)
    elif change < 0.4:
        content = _cut(content, random)
    elif change < 0.45:
        content = _emptied(content, random)
    path = home / f"ACME{random.choice(['.parquet', '.parquet', '.parquet', '.parquet', '.pq', '.csv', '.csv.gz'])}"
    path.write_bytes(content)
    return path


# --- folders ----------------------------------------------------------------------------------------------------------


def _bad_folder(text: str, symbol: str, home: Path, random: Random) -> Path:
    """A folder of a good file and bad ones, of one name twice, of nothing, or one that is named like a file."""
    kind = int(random.integers(6))
    if kind == 0:
        (home / "ACME.csv").mkdir()
        return home / "ACME.csv"
    if kind == 1:
        (home / "notes.md").write_text(text)
        return home
    (home / f"{symbol}.csv").write_text(text)
    if kind == 2:
        (home / f"{symbol}.txt").write_text(text)
    elif kind == 3:
        (home / f"{symbol.lower()}.parquet").mkdir()
        _bad_text(text, home / f"{symbol.lower()}.parquet", random)
    elif kind == 4:
        inner = home / "symbol=OTHER"
        inner.mkdir()
        _bad_text(text, inner, random)
    else:
        (home / "AAA.csv").write_bytes(TEXT[random.integers(len(TEXT))](text.encode(), random))
        (home / "dangling.csv").symlink_to(home / "nowhere.csv")
    return home

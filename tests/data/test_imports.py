"""Files in the cache: what comes from it is what the files would give, and what no longer fits is not used."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine.config import DataConfig
from engine.data.cache import imports
from engine.data.cache.imports import import_files, read_imported
from engine.data.files.reading import read_files
from engine.data.raw import Raw
from engine.data.sources import load_bars
from engine.errors import ConfigError, DataError

ROWS = [
    "date,symbol,open,high,low,close,volume,dividend,split",
    "2024-03-04,ACME,10,12,9,11,100,0,1",
    "2024-03-06,ACME,10,12,9,,100,0,1",
    "2024-03-05,ACME,10,12,9,11,-0.0,0.5,1",
    "2024-03-04,OTHER,20,22,19,21,100,0,1",
    "2024-03-05,OTHER,10,12,9,11,100,0,2",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bars.csv").write_text("\n".join(ROWS) + "\n")
    return tmp_path


def section(**settings: Any) -> DataConfig:
    return DataConfig.model_validate(
        {"source": "files", "symbols": ["ACME", "OTHER"], "path": "bars.csv", "timezone": "UTC"} | settings
    )


def imported(data: DataConfig, folder: Path) -> Raw:
    import_files(data, folder, folder / "cache", fetched="2024-04-01")
    raw = read_imported(data, folder, folder / "cache")
    assert raw is not None
    return raw


def check_same(found: Raw, expected: Raw) -> None:
    for f in fields(Raw):
        one, other = getattr(found, f.name), getattr(expected, f.name)
        if not isinstance(other, dict):
            assert one == other, f.name
            continue
        assert list(one) == list(other), f.name
        for symbol in other:
            if isinstance(other[symbol], np.ndarray):
                np.testing.assert_array_equal(one[symbol], other[symbol])
            elif isinstance(other[symbol], str):
                assert one[symbol] == other[symbol]
            else:
                assert one[symbol].index.equals(other[symbol].index), f.name
                assert one[symbol].to_numpy().tobytes() == other[symbol].to_numpy().tobytes(), f.name


@pytest.mark.parametrize("settings", [{}, {"symbols": "all"}, {"timezone": None}])
def test_what_comes_from_the_cache_is_what_the_file_gives(folder: Path, settings: dict[str, Any]) -> None:
    data = section(**settings)
    check_same(imported(data, folder), read_files(data, folder))


def test_an_adjusted_close_and_one_file_a_symbol(tmp_path: Path) -> None:
    (tmp_path / "bars").mkdir()
    for symbol in ("ACME", "OTHER"):
        text = "Date,Open,High,Low,Close,Adj Close,Volume\n2024-03-04,10,12,9,11,10.5,100\n2024-03-05,10,12,9,11,,100\n"
        (tmp_path / "bars" / f"{symbol}.csv").write_text(text)
    data = section(path="bars", timezone=None)
    check_same(imported(data, tmp_path), read_files(data, tmp_path))


def test_all_symbols_of_an_import_of_some_are_not_known(folder: Path) -> None:
    imported(section(symbols=["ACME"]), folder)
    assert read_imported(section(symbols="all"), folder, folder / "cache") is None
    assert read_imported(section(), folder, folder / "cache") is None
    imported(section(symbols="all"), folder)
    raw = read_imported(section(symbols=["OTHER"]), folder, folder / "cache")
    assert raw is not None
    check_same(raw, read_files(section(symbols=["OTHER"]), folder))


def test_what_no_longer_fits_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cache = section(), folder / "cache"
    imported(data, folder)
    assert read_imported(section(timezone="America/New_York"), folder, cache) is None
    assert read_imported(section(warmup_bars=7, cleaning={"jump": "refuse"}), folder, cache) is not None
    with monkeypatch.context() as patch:
        patch.setattr(imports, "_code", lambda: "another version")
        assert read_imported(data, folder, cache) is None
    text = (folder / "bars.csv").read_text()
    (folder / "bars.csv").write_text(text.replace("11,100", "11,101"))
    assert read_imported(data, folder, cache) is None
    (folder / "bars.csv").write_text(text)
    assert read_imported(data, folder, cache) is not None
    next((cache / "files").rglob("*.parquet")).write_bytes(b"damaged")
    assert read_imported(data, folder, cache) is None
    assert load_bars(section(cleaning={"missing_value": "drop"}), folder, root=folder).symbols == ("ACME", "OTHER")
    assert imported(data, folder).frames.keys() == {"ACME", "OTHER"}


def test_a_file_that_changes_while_it_is_read_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(data: DataConfig, where: Path) -> Raw:
        raw = read_files(data, where)
        with (where / "bars.csv").open("a") as file:
            file.write("2024-03-06,OTHER,10,12,9,11,100,0,1\n")
        return raw

    monkeypatch.setattr(imports, "read_files", slow)
    with pytest.raises(DataError, match="it changed while it was read; try again once it is complete"):
        import_files(section(), folder, folder / "cache", fetched="2024-04-01")
    assert not (folder / "cache").exists()


def test_every_field_of_raw_is_kept_or_made_anew(folder: Path) -> None:
    # A new field that is no plain value has to find its place in the cache, or it would be lost.
    raw = read_files(section(), folder)
    plain = (str, bool, type(None), frozenset)
    others = {f.name for f in fields(Raw) if not isinstance(getattr(raw, f.name), plain)}
    assert others == {"frames", "rows", "origins", "actions", "adjusted_closes"}
    assert pd.DatetimeIndex(raw.actions["ACME"].index).tz is not None


def test_a_path_that_is_no_file_of_bars_is_not_read_to_its_end(folder: Path) -> None:
    """A device or a pipe has none."""
    imported(section(), folder)
    os.mkfifo(folder / "pipe.csv")
    for path in ("/dev/zero", "pipe.csv"):
        assert read_imported(section(path=path), folder, folder / "cache") is None
        with pytest.raises((ConfigError, DataError), match=r"is not a CSV or Parquet file|is no ordinary file"):
            read_files(section(path=path), folder)

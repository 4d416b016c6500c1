"""``data.symbols: all``: what a source has, without a list of it in the run file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from engine.config import DataConfig
from engine.data.samples import SAMPLES
from engine.data.sources import load_bars
from engine.errors import ConfigError

HEADER = "date,open,high,low,close,volume\n"
ROWS = "2024-03-04,10,12,9,11,100\n2024-03-05,11,12,9,10,100\n2024-03-06,10,11,9,10,90\n"


def loaded(path: Path, symbols: object = "all") -> tuple[str, ...]:
    data = DataConfig.model_validate({"source": "files", "symbols": symbols, "path": path})
    return load_bars(data, Path()).symbols


def test_of_a_sample_are_its_symbols() -> None:
    bars = load_bars(DataConfig.model_validate({"source": "sample:tech", "symbols": "all"}), Path())
    assert bars.symbols == SAMPLES["tech"].symbols


def test_of_a_folder_are_its_files(tmp_path: Path) -> None:
    for name in ("B.csv", "A.csv", ".hidden.csv", "notes.md"):
        (tmp_path / name).write_text(HEADER + ROWS)
    assert loaded(tmp_path) == ("A", "B")


def test_of_a_long_file_are_those_in_its_column(tmp_path: Path) -> None:
    rows = pd.read_csv((tmp_path / "one.csv").write_text(HEADER + ROWS) and tmp_path / "one.csv")
    pd.concat([rows.assign(symbol=symbol) for symbol in "BA"]).to_parquet(tmp_path / "long.parquet")
    assert loaded(tmp_path / "long.parquet") == ("A", "B")
    assert loaded(tmp_path / "one.csv") == ("one",)


def test_all_stands_by_itself_and_a_ticker_of_that_name_is_a_ticker(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="all by itself"):
        DataConfig.model_validate({"source": "files", "symbols": ["all", "IBM"]})
    (tmp_path / "ALL.csv").write_text(HEADER + ROWS)
    (tmp_path / "IBM.csv").write_text(HEADER + ROWS)
    assert loaded(tmp_path, ["ALL"]) == ("ALL",)


def test_an_empty_folder_and_alpaca_have_no_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no"):
        loaded(tmp_path)
    with pytest.raises(ConfigError, match="name them"):
        load_bars(DataConfig.model_validate({"source": "alpaca", "symbols": "all"}), Path())

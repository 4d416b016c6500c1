"""A thousand bad files: each becomes canonical bars, or an error of one sentence. Nothing else, and no warning."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from fuzzing import Case, bad_file
from typer.testing import CliRunner

from engine.cli import app
from engine.config import DataConfig
from engine.data.sources import load_bars
from engine.data.validation import validated
from engine.errors import ConfigError, DataError

HUNDREDS = 10
LONGEST_SENTENCE = 500


def outcome(case: Case, folder: Path) -> str:
    """What becomes of a bad file: ``clean``, ``DataError`` or ``ConfigError``."""
    data = DataConfig(source="files", path=case.path, **case.settings)
    try:
        bars = load_bars(data, folder)
    except (DataError, ConfigError) as error:
        sentence = str(error).replace(str(folder), "")
        assert "\n" not in sentence, sentence
        assert sentence.isprintable(), sentence
        assert 20 < len(sentence) < LONGEST_SENTENCE, sentence
        return type(error).__name__
    for symbol, frame in bars.frames.items():
        assert validated(frame, symbol=symbol, origin=str(case.path)).equals(frame)
    return "clean"


@pytest.mark.parametrize("hundred", range(HUNDREDS))
def test_a_bad_file_ends_in_clean_bars_or_in_one_sentence(tmp_path: Path, hundred: int):
    outcomes = Counter(outcome(bad_file(100 * hundred + number, tmp_path), tmp_path) for number in range(100))
    # A fuzzer that only breaks files beyond reading, or that breaks none, tests nothing.
    assert outcomes["DataError"] > 20
    assert outcomes["clean"] > 5


def test_the_command_line_says_it_in_one_sentence_and_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    expected = {"ConfigError": 2, "DataError": 3}
    codes: Counter[int] = Counter()
    for number in range(1000, 1014):
        case = bad_file(number, tmp_path)
        found = outcome(case, tmp_path)
        if found == "clean":
            continue
        settings = {key: list(value) if isinstance(value, tuple) else value for key, value in case.settings.items()}
        run = {
            "name": "fuzz",
            "data": {"source": "files", "path": str(case.path), **settings},
            "spans": {"test": ["2024-01-02", "2024-12-31"]},
            "strategy": {"kind": "strategies.buy_and_hold:BuyAndHold"},
        }
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(run))
        result = CliRunner().invoke(app, ["backtest", str(path)])
        assert result.exit_code == expected[found], result.stderr
        assert len([line for line in result.stderr.splitlines() if line.startswith("nextbar: ")]) == 1, result.stderr
        assert "Traceback" not in result.stderr
        codes[result.exit_code] += 1
    assert codes[2] > 0
    assert codes[3] > 5

"""A folder in which a test types commands."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from click.testing import Result
from typer.testing import CliRunner

from engine.cli import app

Bars = Callable[..., Path]

TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {"source": "sample:tech", "symbols": ["AAPL", "MSFT"], "benchmark": "sample:sp500"},
    "spans": {
        "train": ["2009-01-01", "2009-12-31"],
        "validate": ["2010-01-01", "2010-06-30"],
        "test": ["2011-01-01", "2011-06-30"],
    },
    "model": {"kind": "lstm", "features": ["log_return", "volatility_5"], "lookback": 5, "hidden": 4, "layers": 1},
    "training": {"seed": 7, "epochs": 1, "batch": 64},
    "strategy": {"kind": "strategies.forecast:Forecast", "params": {"margin_bps": -10, "full_size": 0.001}},
    "broker": {"cash": 100000, "commission": {"bps": 1.0}, "slippage_bps": 2.0},
}


@dataclass(frozen=True)
class Project:
    """A folder in which commands run."""

    folder: Path

    def write(self, file: str = "run.yaml", /, **sections: Any) -> Path:
        """A run file like TINY with some sections replaced; None removes one."""
        values = {key: value for key, value in {**TINY, **sections}.items() if value is not None}
        path = self.folder / file
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        return path

    def run(self, *arguments: object) -> Result:
        """Run a command in this process; stdout and stderr are kept apart."""
        return CliRunner().invoke(app, [str(a) for a in arguments])

    def json(self, *arguments: object) -> dict[str, Any]:
        """Run a command with --json that must succeed; the one object on stdout."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        value = json.loads(result.stdout)
        assert isinstance(value, dict)
        return value

    def fails(self, code: int, *arguments: object) -> str:
        """Run a command that must fail with this exit code, and one sentence without a traceback."""
        result = self.run(*arguments)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("nextbar: ")]
        assert len(lines) == 1, result.stderr
        assert result.stdout == ""
        assert not list(self.folder.rglob(".*partial*"))
        return lines[0].removeprefix("nextbar: ")

    @property
    def runs(self) -> list[Path]:
        """The run folders, oldest first."""
        return sorted(path.parent for path in (self.folder / "runs").glob("*/manifest.json"))

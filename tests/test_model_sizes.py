"""Sizes of models that cannot be meant are refused by name, before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.run_file import load_config

FILE = Path(__file__).parents[1] / "configs" / "models" / "lstm.yaml"


@pytest.mark.parametrize(("model", "where"), [
    ({"kind": "lstm", "hidden": 10**10}, "hidden"),
    ({"kind": "lstm", "layers": 65}, "layers"),
    ({"kind": "lstm", "lookback": 10**6}, "lookback"),
    ({"kind": "lstm", "horizon": 10**6}, "horizon"),
    ({"kind": "lstm", "more_horizons": [10**6]}, "more_horizons"),
    ({"kind": "cnn", "channels": 10**10}, "channels"),
    ({"kind": "tcn", "kernel": 10**10}, "kernel"),
    ({"kind": "cnn_lstm", "convolutions": 10**10}, "convolutions"),
    ({"kind": "boosting", "trees": 10**10}, "trees"),
    ({"kind": "boosting", "leaves": 10**10}, "leaves"),
])  # fmt: skip
def test_a_size_that_cannot_be_meant_is_named(tmp_path: Path, model: dict[str, Any], where: str) -> None:
    lines = FILE.read_text().splitlines()
    at = lines.index("model:")
    end = next(i for i in range(at + 1, len(lines)) if not lines[i].startswith(" "))
    file = tmp_path / "large.yaml"
    whole = {"features": ["log_return"], **model}
    file.write_text("\n".join([*lines[:at], f"model: {whole}", *lines[end:]]))
    with pytest.raises(ConfigError, match=rf"model(\.\w+)*\.{where}.*less than or equal"):
        load_config(file)

"""A stage for killing runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kill_stage import KillStage, served


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KillStage:
    """A folder, which is the current one, with a run file of two symbols."""
    monkeypatch.chdir(tmp_path)
    found = KillStage(tmp_path)
    found.config()
    return found


@pytest.fixture
def exchange(stage: KillStage, monkeypatch: pytest.MonkeyPatch) -> Iterator[KillStage]:
    """The stage with an exchange of three symbols, to which the environment's keys belong."""
    with served(
        stage, stage.config("exchange.yaml", data={"source": "sample:tech", "symbols": ["AAPL", "MSFT", "IBM"]})
    ):
        monkeypatch.setenv("APCA_API_BASE_URL", stage.url)
        monkeypatch.setenv("APCA_API_KEY_ID", "PKTEST")
        monkeypatch.setenv("APCA_API_SECRET_KEY", "secret")
        yield stage

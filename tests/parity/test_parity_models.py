"""Every kind of model drives the same strategy in both modes: its own small run file, trained, tested and replayed."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
import yaml
from pairs import NOW, Pair

from engine.backtest import backtest
from engine.config import RunConfig, Spans
from engine.model_sections import MODEL_KINDS, EnsembleConfig
from engine.paper import paper
from engine.run_file import load_config
from engine.training import train
from engine.twin import twin

FILES = sorted((Path(__file__).parents[2] / "configs" / "models").glob("*.yaml"))
SPANS = Spans(
    train=(date(2009, 3, 2), date(2009, 12, 31)),
    validate=(date(2010, 1, 4), date(2010, 3, 31)),
    test=(date(2011, 1, 3), date(2011, 1, 21)),
)


def cut(file: Path) -> RunConfig:
    """The run file as it is, on a few weeks of it."""
    config = load_config(file)
    training = config.training.model_copy(update={"epochs": 1})
    data = config.data.model_copy(update={"benchmark": None, "warmup_bars": 0})
    return config.model_copy(update={"spans": SPANS, "training": training, "data": data})


def test_every_kind_has_a_run_file_that_says_what_it_is() -> None:
    models = {file.stem: load_config(file).model for file in FILES}
    assert {model.kind for model in models.values()} == set(MODEL_KINDS)
    combined = {model.combine for model in models.values() if isinstance(model, EnsembleConfig)}
    assert combined == {"mean", "weighted", "stacked", "online"}
    for file in FILES:
        text = file.read_text()
        assert text.startswith("# ")
        assert yaml.safe_load(text)["name"] == file.stem


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_the_replay_is_the_backtest(file: Path, tmp_path: Path) -> None:
    config = cut(file)
    assert not train(config, root=tmp_path, now=NOW).reused
    tested = backtest(config, root=tmp_path, now=NOW)
    pair = Pair(backtest=tested, paper=paper(config, root=tmp_path, now=NOW, replay=True)).agree()
    assert len(pair.orders) > 1
    assert len(pair.fills) > 1
    assert twin(str(pair.paper.run), root=tmp_path / "runs").verdict == "identical"

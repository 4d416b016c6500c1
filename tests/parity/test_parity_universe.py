"""A universe in both clocks: the replay, a run that goes on, and the twin decide on the members of the moment too."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from lockstep import assert_parity, daily
from pairs import NOW, manifest, run_both, write_config
from wishes import Wish, Wishes

from engine.backtest import backtest
from engine.data.universe import Membership
from engine.live.inbox import Inbox
from engine.live.status import Status
from engine.paper import PaperReport, paper
from engine.report.tear_sheet import badges
from engine.twin import twin

SPELLS = """symbol,start,end
AAPL,2000-01-01,2011-02-01
GOOG,2005-01-01,
IBM,2011-02-01,
GONE,2000-01-01,2011-01-20
MSFT,2000-01-01,2011-01-20
MSFT,2011-03-01,
"""


def data(folder: Path, **more: Any) -> dict[str, Any]:
    (folder / "universe.csv").write_text(SPELLS)
    return {"source": "sample:tech", "universe": "universe.csv", "warmup_bars": 30, **more}


@pytest.mark.parametrize("more", [{}, {"symbols": ["IBM", "MSFT", "AAPL"]}], ids=["everybody", "some by name"])
def test_the_replay_is_the_backtest(tmp_path: Path, more: dict[str, Any]) -> None:
    pair = run_both(tmp_path, data=data(tmp_path, **more)).agree()
    fills = pair.fills
    assert set(fills["symbol"]) == set(more.get("symbols", ["AAPL", "GOOG", "IBM", "MSFT"]))
    days = fills["time"].dt.strftime("%Y-%m-%d")
    # Decided on at the first bar outside, filled at the next.
    assert days[(fills["symbol"] == "AAPL")].max() == "2011-02-02"
    assert days[(fills["symbol"] == "IBM")].min() >= "2011-02-02"
    tested, replayed = manifest(pair.backtest.run), manifest(pair.paper.run)
    assert tested["universe"] == replayed["universe"]
    assert tested["universe"]["members"] == 5
    stamp = "2 of 5 members take no part" if more else "1 of 5 members have no bars"
    assert f"SURVIVORSHIP: {stamp}" in badges(tested)
    assert f"SURVIVORSHIP: {stamp}" in (pair.paper.run / "report.html").read_text()
    assert any(remark.startswith("SURVIVORSHIP") for remark in pair.backtest.remarks)
    assert pair.backtest.remarks == pair.paper.remarks
    report = twin(str(pair.paper.run), root=tmp_path / "runs")
    assert (report.verdict, report.same_orders, report.same_fills) == ("identical", True, True)
    assert report.remarks == ()
    (tmp_path / "universe.csv").write_text(SPELLS.replace("2011-02-01", "2011-02-08"))
    assert "the universe has changed since the run" in twin(str(pair.paper.run), root=tmp_path / "runs").remarks


def stopped_at(folder: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> PaperReport:
    """A replay that is stopped after a step."""
    inboxes: list[Inbox] = []

    class Known(Inbox):
        def __init__(self) -> None:
            super().__init__()
            inboxes.append(self)

    def look(picture: Any) -> None:
        status: Status = picture()
        if status.step == step:
            inboxes[-1].stop()

    with monkeypatch.context() as patch:
        patch.setattr("engine.live.connection.Inbox", Known)
        config = write_config(folder, data=data(folder))
        return paper(config, root=folder, now=NOW, replay=True, on_status=look)


def test_a_run_goes_on_in_its_universe_and_not_in_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(tmp_path, data=data(tmp_path))
    whole = backtest(config, root=tmp_path, now=NOW)
    assert stopped_at(tmp_path, 25, monkeypatch).status == "stopped"
    resumed = paper(config, root=tmp_path, now=NOW, replay=True)
    assert (resumed.resumed, resumed.status) == (25, "completed")
    assert (resumed.orders_hash, resumed.fills_hash) == (whole.orders_hash, whole.fills_hash)
    stopped_at(tmp_path, 25, monkeypatch)
    (tmp_path / "universe.csv").write_text(SPELLS.replace("2011-02-01", "2011-02-08"))
    assert paper(config, root=tmp_path, now=NOW, replay=True).resumed == 0


def test_orders_of_a_plain_strategy_are_refused_and_withdrawn_alike(tmp_path: Path) -> None:
    """A waits behind a limit when it leaves; B is bought before it joins, while it is in, and sold outside."""
    bars = daily({"A": [100.0] * 9, "B": [100.0] * 9})
    days = [time.date() for time in bars.frames["A"].index]
    spells = {"A": ((date(2000, 1, 1), days[4]),), "B": ((days[2], days[6]),)}
    script = {
        1: [Wish(kind="limit", limit=0.5), Wish(symbol=1)],
        3: [Wish(symbol=1), Wish(symbol=1, kind="limit", limit=0.4)],
        5: [Wish(symbol=0)],
        7: [Wish(symbol=1), Wish(symbol=1, side=-1, size=4.0)],
    }
    outcome = assert_parity(replace(bars, membership=Membership(spells)), Wishes, tmp_path, script=script)
    ended = [(state[1], state[7]) for state in outcome.states]
    assert ended == [
        ("A", "canceled"), ("B", "refused"), ("B", "filled"), ("B", "canceled"), ("A", "refused"), ("B", "refused"),
        ("B", "filled"),
    ]  # fmt: skip

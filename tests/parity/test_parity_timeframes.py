"""Bars made of minutes, and longer bars beside them: the replay, which makes them itself, repeats the backtest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pairs import NOW, Pair, entries, frame, run_both, write_config

from engine.backtest import backtest
from engine.errors import ConfigError
from engine.exchange.history import bars_page
from engine.paper import paper
from engine.run_file import load_config
from engine.twin import twin

SYMBOLS = ["SYN_CALM", "SYN_LATE", "SYN_THIN", "SYN_WILD"]
FILTERED = {"kind": "strategies.filtered_cross:FilteredCross", "params": {"fast": 2, "slow": 5, "trend": 2}}
SMA = {"kind": "strategies.sma_cross:SmaCross", "params": {"fast": 2, "slow": 5}}
COSTS = {"cash": 50000, "commission": {"per_share": 0.0035, "minimum": 1.0}, "slippage_bps": 3.0}


def data(timeframe: str, *symbols: str, **more: Any) -> dict[str, Any]:
    asked = {"symbols": list(symbols or SYMBOLS), "timeframe": timeframe, "base": "1m", "warmup_bars": 60}
    return {"source": "sample:minutes", **asked, **more}


CASES: dict[str, dict[str, Any]] = {
    "15m and days": {"data": data("15m", slower=["1d"]), "strategy": FILTERED},
    "15m, thin alone": {"data": data("15m", "SYN_THIN", slower=["1d"]), "strategy": FILTERED},
    "hours from the open": {"data": data("1h", warmup_bars=10), "strategy": SMA},
    "days of minutes": {"data": data("1d", warmup_bars=5), "strategy": SMA},
    "two longer ones": {"data": data("5m", slower=["1h", "1d"], warmup_bars=200), "strategy": FILTERED},
    "months of days": {
        "data": {
            "source": "sample:tech",
            "symbols": ["AAPL", "IBM"],
            "timeframe": "1mo",
            "base": "1d",
            "warmup_bars": 6,
        },
        "spans": {"test": ["2009-01-01", "2011-12-31"]},
        "strategy": SMA,
    },
    "no warm-up": {"data": data("30m", slower=["1d"], warmup_bars=0), "strategy": FILTERED},
}


@pytest.mark.parametrize("sections", CASES.values(), ids=CASES)
def test_the_replay_is_the_backtest(tmp_path: Path, sections: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: set[str | None] = set()

    def page(exchange: Any, query: Any) -> Any:
        asked.add(query.get("timeframe"))
        return bars_page(exchange, query)

    monkeypatch.setattr("engine.exchange.rest.bars_page", page)
    spans = {"test": ["2023-11-16", "2023-11-28"]}
    pair: Pair = run_both(tmp_path, **{"spans": spans, "broker": COSTS, **sections}).agree()
    assert len(pair.fills) > 4
    base = sections["data"]["base"]
    assert asked == {{"1m": "1Min", "1d": "1Day"}[base]}  # the run makes its bars itself
    assert twin(str(pair.paper.run), root=tmp_path / "runs").verdict == "identical"


def test_longer_bars_are_not_in_the_journal_and_not_traded(tmp_path: Path) -> None:
    (tmp_path / "looks.py").write_text(
        "import backtrader as bt\n"
        "class Looks(bt.Strategy):\n"
        "    def prenext(self): self.next()\n"
        "    def next(self):\n"
        "        days = self.datas[0].slower['1d']\n"
        "        if len(days) == 3 and not self.position: self.buy(size=7)\n"
        "class Buys(bt.Strategy):\n"
        "    def prenext(self): self.next()\n"
        "    def next(self): self.buy(self.getdatabyname('SYN_CALM@1d'), size=1)\n"
    )
    spans = {"test": ["2023-11-20", "2023-11-28"]}
    asked = data("15m", "SYN_CALM", slower=["1d"], warmup_bars=0)
    pair = run_both(tmp_path, data=asked, spans=spans, strategy={"kind": "./looks.py:Looks"}).agree()
    first = pair.fills.iloc[0]
    # The third day is a half day's eve: it is known at its close, and the order fills at the next bar.
    assert f"{first['time']:%Y-%m-%d %H:%M}" == "2023-11-24 14:45"
    assert all(set(entry.body["bars"]) == {"SYN_CALM"} for entry in entries(pair.paper.run, "bars"))
    with pytest.raises(Exception, match=r"SYN_CALM@1d holds longer bars to look at; order the symbol itself"):
        run_both(tmp_path, data=asked, spans=spans, strategy={"kind": "./looks.py:Buys"})


def test_a_rule_that_needs_days_says_so(tmp_path: Path) -> None:
    config = write_config(tmp_path, data=data("15m"), spans={"test": ["2023-11-20", "2023-11-28"]}, strategy=FILTERED)
    with pytest.raises(ConfigError, match=r"data.slower: FilteredCross looks at longer bars too; add some"):
        paper(config, root=tmp_path, now=NOW, replay=True)


def test_the_shipped_example_with_its_universe(tmp_path: Path) -> None:
    config = load_config(Path(__file__).parents[2] / "configs" / "two_timeframes.yaml")
    tested = backtest(config, root=tmp_path, now=NOW)
    pair = Pair(backtest=tested, paper=paper(config, root=tmp_path, now=NOW, replay=True)).agree()
    assert set(pair.fills["symbol"]) == set(SYMBOLS)
    # The thin one is a member until the 22nd; else it would have been traded on.
    left = pd.Timestamp("2023-11-23", tz="UTC")
    assert (pair.fills.loc[pair.fills["symbol"] == "SYN_THIN", "time"] < left).all()
    everybody = config.data.model_copy(update={"universe": None, "symbols": tuple(SYMBOLS)})
    again = backtest(config.model_copy(update={"data": everybody}), root=tmp_path, now=NOW)
    fills = frame(again.run, "fills")
    assert (fills.loc[fills["symbol"] == "SYN_THIN", "time"] > left).any()

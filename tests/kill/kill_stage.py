"""A folder with a run file, an exchange on which its strategy trades until it breaks, and others on the account."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from engine.config import RunConfig
from engine.errors import NextbarError
from engine.exchange.account import AccountSpec
from engine.exchange.server import ExchangeServer
from engine.kill import KillReport, Timing, kill
from engine.kill_process import Patience
from engine.live.account_rest import Persistence
from engine.live.flatten import Waits
from engine.live.journal import FILE, Entry, Journal
from engine.paper import PaperReport, paper
from engine.run_file import load_config
from engine.serving import bars_to_replay

NOW = datetime(2026, 11, 24, 10, 31, 2, tzinfo=UTC)
REASON = "killed with nextbar kill on 2026-11-24 10:31:02 UTC"
QUICK = Timing(
    patience=Patience(reaction=0.4, end=20.0, death=5.0),
    persistence=Persistence(seconds=5.0, pauses=(0.0, 0.01)),
    waits=Waits(cancel=2.0, fill=0.2, fill_when_closed=0.0, again=0.0),
)
# AAPL: a bracket that stays open. MSFT: a position, and an order that never fills. Broken, it ends at the tenth bar.
STRATEGY = """
from pathlib import Path
import backtrader as bt

class Mine(bt.Strategy):
    def next(self):
        if len(self) == 3:
            price = self.datas[0].close[0]
            self.buy_bracket(data=self.datas[0], size=10, exectype=bt.Order.Market,
                             limitprice=price * 3, stopprice=price / 3)
            self.buy(data=self.datas[1], size=20)
        if len(self) == 6:
            self.buy(data=self.datas[1], size=5, exectype=bt.Order.Limit, price=1.0)
        if len(self) == 10 and Path("broken").exists():
            raise RuntimeError("the strategy is broken")
"""


@dataclass
class KillStage:
    """A folder in which a run trades, and what is said about it."""

    folder: Path
    url: str = ""
    said: list[str] = field(default_factory=list)

    def config(self, file: str = "run.yaml", **sections: Any) -> RunConfig:
        """A run file, written and read."""
        values = {
            "name": "mine",
            "data": {"source": "sample:tech", "symbols": ["AAPL", "MSFT"]},
            "spans": {"test": ["2011-01-01", "2011-03-31"]},
            "strategy": {"kind": "./mine.py:Mine"},
            "broker": {"cash": 100000},
            **sections,
        }
        (self.folder / file).write_text(yaml.safe_dump(values))
        (self.folder / "mine.py").write_text(STRATEGY)
        return load_config(self.folder / file)

    def trade(self, *, replay: bool = False, **more: Any) -> PaperReport:
        """Trade the run file to its end."""
        return paper(load_config(self.folder / "run.yaml"), now=NOW, replay=replay, **more)

    def break_down(self, *, replay: bool = False) -> Path:
        """Trade until the strategy breaks; the folder of the run, which holds something and has orders open."""
        (self.folder / "broken").touch()
        with pytest.raises(NextbarError, match="broken"):
            self.trade(replay=replay)
        (self.folder / "broken").unlink()
        return max((self.folder / "runs").glob("*Z-*"))

    def kill(self, reference: str | None = None, timing: Timing = QUICK) -> KillReport:
        """Kill a run."""
        return kill(reference, root=self.folder / "runs", now=NOW, say=self.said.append, timing=timing)

    # --- the account, as somebody else sees it ---------------------------------------------------------------------

    def ask(self, method: str, path: str, body: Any = None, key: str = "PKTEST") -> Any:
        """An answer of the exchange."""
        headers = {"APCA-API-KEY-ID": key, "APCA-API-SECRET-KEY": "secret"}
        answer = requests.request(method, self.url + path, json=body, headers=headers, timeout=10)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def order(self, symbol: str, side: str, quantity: float, **more: Any) -> Any:
        """Somebody else's order."""
        body = {"symbol": symbol, "side": side, "qty": str(quantity), "type": "market", "time_in_force": "day", **more}
        return self.ask("POST", "/v2/orders", body)

    def advance(self) -> None:
        """The exchange's next step."""
        self.ask("POST", "/nextbar/advance")

    def orders(self) -> list[Any]:
        """All orders of the account, the oldest first."""
        found = self.ask("GET", "/v2/orders?status=all&limit=500&direction=asc")
        assert isinstance(found, list)
        return found

    def closings(self) -> list[tuple[str, str, float]]:
        """Side, symbol and quantity of all closing orders of kills."""
        return [(o["side"], o["symbol"], float(o["qty"])) for o in self.orders() if "-kill-" in o["client_order_id"]]

    def held(self) -> dict[str, float]:
        """Positions of the account."""
        return {p["symbol"]: float(p["qty"]) for p in self.ask("GET", "/v2/positions")}


@contextmanager
def served(
    stage: KillStage, config: RunConfig, *, port: int = 0, state: Path | None = None
) -> Iterator[ExchangeServer]:
    """An exchange in lock-step with the bars of the run file, an account for the run, and another one."""
    bars, start = bars_to_replay(config)
    accounts = [AccountSpec(key=key, secret="secret", broker=config.broker) for key in ("PKTEST", "PKOTHER")]
    with ExchangeServer(bars=bars, start=start, accounts=accounts, port=port, state=state) as exchange:
        stage.url = exchange.url
        yield exchange


def entries(run: Path, *kinds: str) -> list[Entry]:
    """The entries of a run's journal."""
    journal = Journal.read_only(run / FILE)
    try:
        return list(journal.entries(*kinds))
    finally:
        journal.close()


def status_of(run: Path) -> str:
    """The status in a run's manifest."""
    return str(json.loads((run / "manifest.json").read_text())["status"])

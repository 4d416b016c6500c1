"""configs/alpaca-minute.yaml from its first step to its last, with the embedded exchange in the place of Alpaca."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pytest
from market import minutes

from engine.backtest import backtest
from engine.config import BrokerConfig
from engine.exchange.account import AccountSpec
from engine.exchange.server import ExchangeServer
from engine.paper import paper
from engine.run_file import load_config
from engine.training import train
from engine.twin import twin

CONFIG = Path(__file__).parents[2] / "configs" / "alpaca-minute.yaml"
TODAY = date(2024, 3, 18)
SMALL = ["model.hidden=4", "training.epochs=1", "data.symbols=[AAPL, SPY]", "risk.symbols=[AAPL, SPY]"]
EAGER = "strategy.params.margin_bps=-5"


def test_the_same_file_fetches_trains_backtests_and_trades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(CONFIG, [*SMALL, EAGER], today=TODAY)
    assert config.spans.test == (date(2024, 3, 11), date(2024, 3, 17))
    bars = minutes(config.data.symbols, "2024-02-06", "2024-03-18")
    account = AccountSpec(key="PKTEST", secret="secret-of-the-test", broker=BrokerConfig(cash=250_000.0))
    now = datetime(2024, 3, 18, 9, tzinfo=UTC)
    last_session = pd.Timestamp("2024-03-18 13:31", tz="UTC")
    with ExchangeServer(bars=bars, start=last_session, accounts=[account]) as exchange:
        monkeypatch.setenv("APCA_API_BASE_URL", exchange.url)
        monkeypatch.setenv("APCA_API_KEY_ID", account.key)
        monkeypatch.setenv("APCA_API_SECRET_KEY", account.secret)

        trained = train(config, root=tmp_path, now=now)
        tested = backtest(config, root=tmp_path, now=now)
        assert tested.status == "completed"

        named = load_config(CONFIG, [*SMALL, EAGER, f"model={{bundle: {trained.path.name}}}"], today=TODAY)
        named = named.model_copy(update={"folder": trained.path.parent})
        traded = paper(named, root=tmp_path, now=now, replay=False)

    assert (traded.status, traded.mode) == ("completed", "exchange")
    decided = pd.read_parquet(traded.run / "equity.parquet")
    assert decided.index[0] == last_session
    assert 380 < len(decided) <= 390
    forecasts = pd.read_parquet(traded.run / "forecasts.parquet")
    assert forecasts["forecast"].notna().all()
    found = twin(traded.run.name, root=tmp_path / "runs")
    # Given its fills, every decision is the same. The account there has no slippage, the model half a basis point.
    assert (found.verdict, found.same_fills) == ("identical", False)
    assert found.fills["matched"] > 0
    assert found.fills["cost_bps_mean"] == pytest.approx(-0.5, abs=0.01)
    for file in traded.run.iterdir():
        assert b"secret-of-the-test" not in file.read_bytes(), file.name

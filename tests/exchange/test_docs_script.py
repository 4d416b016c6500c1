"""The script in docs/alpaca-py.md is run as it stands, but for the port."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date
from pathlib import Path

from engine.config import BrokerConfig
from engine.data.cuts import with_history
from engine.data.samples import load_sample
from engine.exchange.server import AccountSpec, ExchangeServer

PAGE = Path(__file__).parents[2] / "docs" / "alpaca-py.md"
SIX_THOUSAND = 6_000.0  # times as fast as life: 10 ms a minute


def test_the_pages_ten_lines_buy_ten_shares() -> None:
    (script,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S)
    assert len([line for line in script.splitlines() if line.strip()]) == 10
    assert script.count("http://127.0.0.1:8765") == 1
    sample = load_sample("minutes", ("SYN_CALM",))
    bars, start, _ = with_history(sample, (date(2023, 11, 6), date(2023, 11, 29)), warmup=300)
    account = AccountSpec(key="practice", secret="practice", broker=BrokerConfig())
    with ExchangeServer(bars=bars, start=start, accounts=[account], speed=SIX_THOUSAND) as exchange:
        run = subprocess.run(
            [sys.executable, "-c", script.replace("http://127.0.0.1:8765", exchange.url)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert run.returncode == 0, run.stderr
    cash, filled, position = run.stdout.splitlines()
    assert cash == "cash: 100000"
    assert re.fullmatch(r"filled 10 SYN_CALM at \d+\.\d+", filled)
    assert position == "position: 10"

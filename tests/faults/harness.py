"""Run files to be killed over, and what must come out of every such run."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DAILY: dict[str, Any] = {
    "name": "restless",
    "data": {"source": "sample:tech", "symbols": ["AAPL", "IBM", "MSFT"], "warmup_bars": 5},
    "spans": {"test": ["2011-01-03", "2011-04-15"]},
    "strategy": {"kind": "./restless.py:Restless", "params": {"seed": 3}},
    "broker": {"cash": 100000, "commission": {"bps": 1.0}, "slippage_bps": 2.0},
}
# One short session: the bars come through the stream.
MINUTES: dict[str, Any] = {
    **DAILY,
    "name": "minutes",
    "data": {
        "source": "sample:minutes",
        "symbols": ["SYN_CALM", "SYN_THIN", "SYN_WILD"],
        "timeframe": "1m",
        "warmup_bars": 5,
    },
    "spans": {"test": ["2023-11-24", "2023-11-24"]},
    "strategy": {"kind": "./restless.py:Restless", "params": {"seed": 3, "eager": 0.15}},
}
# A rule, interest on what is borrowed, and a limit that stops it: all of it is state that must come back.
RULE: dict[str, Any] = {
    **DAILY,
    "name": "rule",
    "data": {"source": "sample:tech", "symbols": ["AAPL", "IBM", "MSFT"], "warmup_bars": 40},
    "spans": {"test": ["2011-01-03", "2011-08-31"]},
    "strategy": {"kind": "strategies.sma_cross:SmaCross", "params": {"fast": 3, "slow": 12}},
    "risk": {"max_gross": 1.5, "max_drawdown_halt": 0.08},
}

Results = list[dict[str, Any]]


def run_trials(
    folder: Path, config: dict[str, Any], trials: Sequence[dict[str, Any]], *, workers: int = 2, seconds: float = 900.0
) -> Results:
    """The results of an undisturbed run, which comes first, and of the trials; see ``nursery``."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(HERE / "restless.py", folder)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(config))
    plan = {
        "config": str(path),
        "root": str(folder / "trials"),
        "workers": workers,
        "trials": [{"name": "undisturbed"}, *trials],
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.nursery", str(folder / "plan.json"), str(folder / "results.json")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results: Results = json.loads((folder / "results.json").read_text())
    assert results[0]["status"] in ("completed", "halted"), results[0]
    assert results[0]["client_ids"], "the undisturbed run must trade"
    return results


def moments(name: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Trials that are killed at random moments, once to three times one after another."""
    draw = random.Random(f"{name} {seed}")
    return [
        {"name": f"{name} {number}", "deaths": [draw.uniform(-0.3, 1.0) for _ in range(draw.randint(1, 3))]}
        for number in range(count)
    ]


def schedules(kinds: str, seeds: Iterable[int], *, deaths: bool = False, count: int = 6) -> list[dict[str, Any]]:
    """Trials on exchanges that misbehave, each by its seed alone; ``deaths``: and whose process is killed besides."""
    return [
        {
            "name": f"seed {seed}",
            "faults": f"seed={seed},count={count},kinds={kinds}",
            "deaths": [random.Random(seed).uniform(0.0, 1.2)] if deaths else [],
        }
        for seed in seeds
    ]


def assert_undisturbed(results: Results) -> None:
    """Every trial came to what the undisturbed run came to: orders, fills, figures; each order sent once."""
    expected, wrong = results[0], []
    for found in results[1:]:
        same = all(found.get(key) == expected[key] for key in ("status", "orders_hash", "fills_hash", "metrics"))
        if not (same and _once(found) and len(found["client_ids"]) == len(expected["client_ids"])):
            wrong.append(_shown(found))
    assert not wrong, "\n".join(wrong)


def assert_sound(results: Results) -> None:
    """Every trial came to an end with books that agree (it would have failed), and each order was sent once."""
    wrong = [_shown(r) for r in results[1:] if not (r["status"] in ("completed", "halted") and _once(r))]
    assert not wrong, "\n".join(wrong)


def tally(results: Results) -> dict[str, int]:
    """How much happened: trials, deaths, recoveries, and the faults that struck, by kind."""
    struck = Counter(kind for found in results for _, kind in found.get("struck", ()))
    return {
        "trials": len(results) - 1,
        "killed": sum(found["killed"] for found in results),
        "went on": sum(bool(found.get("resumed")) for found in results),
        "faults struck": sum(struck.values()),
        **dict(sorted(struck.items())),
    }


def _once(found: dict[str, Any]) -> bool:
    ids = found["client_ids"]
    return found["runs"] == 1 and len(ids) == len(set(ids))


def _shown(found: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in found.items() if key not in ("metrics", "client_ids")})

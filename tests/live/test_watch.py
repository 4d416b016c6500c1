"""The terminal's view of a paper run: what is on it at 80 and 120 columns, and when a picture is asked for.

The picture in the documentation is of a real replay: ``python tests/live/test_watch.py FOLDER docs/paper.svg``, where
the folder holds the bundle that ``nextbar train configs/quickstart.yaml`` has made.
"""

from __future__ import annotations

import io
import math
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from engine import watch
from engine.live.status import Forecasted, Held, OpenOrder, Status
from engine.watch import Clock, watching
from engine.watch_layout import View, age_text, signed

DAY = 86_400_000_000_000
CLOSE = int(datetime(2011, 7, 25, 20, 0, tzinfo=UTC).timestamp()) * 1_000_000_000
_PICTURED = 145
NOW = datetime(2026, 3, 2, 15, 30, 12, tzinfo=UTC)


def forecast(bps: float, price: float, *, width: float = 200.0, made: int = CLOSE, horizon: int = 1) -> Forecasted:
    return Forecasted(
        made=made,
        forecast=bps / 1e4,
        lower=(bps - width) / 1e4,
        upper=(bps + width) / 1e4,
        horizon=horizon,
        price=price,
    )


STATUS = Status(
    run="20260302T153000Z-quickstart",
    venue="replay",
    step=141,
    time=CLOSE,
    closes={"AAPL": 51.21, "GOOG": 310.45, "IBM": 154.06, "MSFT": 23.44},
    forecasts={
        "AAPL": forecast(7.4, 51.21),
        "GOOG": forecast(9.2, 310.45),
        "IBM": forecast(-2.1, 154.06),
        "MSFT": forecast(4.2, 23.44),
    },
    came={
        "AAPL": (forecast(13.9, 50.54, made=CLOSE - DAY), 0.0131),
        "GOOG": (forecast(10.0, 318.1, made=CLOSE - DAY), -0.0243),
        "IBM": (forecast(4.7, 155.3, made=CLOSE - DAY), -0.0080),
        "MSFT": (forecast(4.7, 22.9, made=CLOSE - DAY), 0.0233),
    },
    positions={"AAPL": Held(quantity=471, average_price=46.97, price=51.21)},
    orders=(
        OpenOrder(number=7, symbol="GOOG", side="buy", quantity=83, type="limit", prices="limit 309", decided=CLOSE),
    ),
    equity=102_901.5,
    starting_equity=100_000.0,
    peak_equity=100_000.0,
    session_equity=103_555.0,
    cash=78_781.59,
    sent=7,
    filled=6,
    turned_down=1,
    latencies_ms={"decide": 13.7, "send": 2.2, "fill": 51.6},
    feed="polled",
    broker="connected",
    reconnects=0,
    halted="",
    log=("sell 63 GOOG filled", "buy 471 AAPL filled"),
)


def view(status: Status | None = STATUS, **more: Any) -> View:
    return View(status=status, now=NOW, **more)


def shown(what: View, *, width: int = 120, height: int = 40, colours: bool = False) -> str:
    console = Console(
        width=width,
        height=height,
        file=io.StringIO(),
        highlight=False,
        force_terminal=colours,
        color_system="truecolor" if colours else None,
    )
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def row(text: str, start: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(start)).split()


# --- content ---------------------------------------------------------------------------------------------------------


def test_a_forecast_is_shown_before_its_bar_and_beside_what_came():
    text = shown(view())
    # close, then of the bar that is not there: bps, interval, price; then of the last bar: said, came, verdict.
    assert row(text, "AAPL")[1:9] == ["51.21", "+7.4", "−193", "+207", "51.25", "+13.9", "+131.0", "hit/in"]
    assert row(text, "GOOG")[6:9] == ["+10.0", "−243.0", "miss/out"]
    assert "next bar" in text
    assert "last bar" in text


def test_a_longer_horizon_is_named():
    status = replace(STATUS, forecasts={"AAPL": forecast(7.4, 51.21, horizon=5)})
    text = shown(view(status))
    assert "next 5 bars" in text
    assert "last 5 bars" in text


def test_banner_times_account_orders_and_connections():
    text = shown(view(bar_age=3.2))
    assert text.startswith(" PAPER  replay  20260302T153000Z-quickstart")
    assert "last bar 2011-07-25 20:00 UTC, 16:00 New York, 3 s ago" in text
    assert "now 15:30:12 UTC" in text
    for figure in ("102,901.50", "+2,901.50", "+2.90 %", "−653.50", "−0.63 %", "78,781.59", "23.4 %"):
        assert figure in text
    assert row(text, "AAPL")[9:] == ["+471", "46.97", "+1,997.04"]
    assert "#7 buy 83 GOOG limit 309, decided 2011-07-25 20:00 UTC" in text
    assert "1 open, 7 sent, 6 filled, 1 turned down" in text
    assert "bar to decision 13.7 ms" in text
    assert "feed ● polled   broker ● connected   0 reconnects" in text
    assert "buy 471 AAPL filled" in text


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (120, 24), (60, 24)])
@pytest.mark.parametrize("halted", ["", "risk.max_drawdown_halt: equity is 51 % below its peak, the limit is 50 %"])
def test_it_fits_the_terminal(width: int, height: int, halted: str):
    symbols = [f"SYM{i:02}" for i in range(40)]
    status = replace(
        STATUS,
        halted=halted,
        closes=dict.fromkeys(symbols, 1234.56),
        forecasts={symbol: forecast(-123.4, 1234.56, width=432.0) for symbol in symbols},
        came={symbol: (forecast(-123.4, 1234.56), -0.0567) for symbol in symbols},
        positions={symbol: Held(quantity=-1234, average_price=1234.5, price=1300.0) for symbol in symbols},
        orders=STATUS.orders * 9,
        log=tuple(f"event {i}" for i in range(8)),
    )
    lines = shown(view(status, bar_age=4000.0, stale=True), width=width, height=height).splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width


def test_at_80_columns_no_figure_of_an_ordinary_run_is_cut():
    text = shown(view(), width=80, height=24)
    assert "…" not in text
    assert row(text, "AAPL")[1:] == [
        "51.21",
        "+7.4",
        "−193",
        "+207",
        "51.25",
        "+13.9",
        "+131",
        "hit/in",
        "+471",
        "+1,997",
    ]


def test_without_forecasts_there_are_no_forecast_columns():
    text = shown(view(replace(STATUS, forecasts={}, came={})))
    assert "next bar" not in text
    assert "80 %" not in text
    assert row(text, "AAPL") == ["AAPL", "51.21", "+471", "46.97", "+1,997.04"]


def test_with_many_symbols_those_that_matter_come_first():
    symbols = [f"SYM{i:02}" for i in range(20)]
    status = replace(
        STATUS,
        closes=dict.fromkeys(symbols, 10.0),
        forecasts={"SYM17": forecast(3.0, 10.0)},
        came={},
        positions={"SYM19": Held(quantity=1, average_price=9.0, price=10.0)},
        orders=(replace(STATUS.orders[0], symbol="SYM18"),),
    )
    lines = shown(view(status)).splitlines()
    assert [line[:5] for line in lines if line.startswith("SYM")][:4] == ["SYM19", "SYM18", "SYM17", "SYM00"]
    assert "and 8 more symbols, not shown" in lines


def test_a_halt_is_said_with_its_reason():
    text = shown(view(replace(STATUS, halted="risk.stale_seconds: no bar for 300 seconds")))
    assert " HALTED  risk.stale_seconds: no bar for 300 seconds" in text


def test_a_stale_view_says_so_and_has_no_coloured_number():
    fresh, stale = shown(view(), colours=True), shown(view(stale=True, bar_age=400.0), colours=True)
    assert "STALE" not in fresh
    assert "STALE" in stale
    assert "6 min ago" in stale
    numbers = next(line for line in stale.splitlines() if "51.21" in line)
    assert "\x1b[32m" not in numbers
    assert re.search(r"\x1b\[2m +51\.21", numbers)


def test_a_forecast_of_a_bar_ago_is_called_old():
    text = shown(view(replace(STATUS, forecasts={"IBM": forecast(-2.1, 154.06, made=CLOSE - DAY)})))
    assert row(text, "IBM")[2:4] == ["old", "−2.1"]


def test_a_connection_that_was_not_looked_at_is_not_claimed_to_be_up():
    assert "● connected" in shown(view(seen_age=1.0))
    text = shown(view(seen_age=60.0))
    assert "●" not in text
    assert "as seen 60 s ago" in text
    assert "broker ○ lost" in shown(view(replace(STATUS, broker="lost")))


def test_the_end_is_said():
    text = shown(view(ended=True))
    assert "run ended" in text
    assert "feed and broker closed" in text
    assert "ago" not in text


def test_nan_and_zero():
    nan = math.nan
    status = replace(
        STATUS,
        time=0,
        closes={"AAPL": nan, "GOOG": 0.0},
        forecasts={"AAPL": forecast(0.0, 10.0, width=nan), "GOOG": forecast(-0.01, 1.0)},
        came={"AAPL": (forecast(0.0, 10.0, width=nan), 0.0)},
        positions={"AAPL": Held(quantity=1.5, average_price=10.0, price=nan)},
        equity=0.0,
        starting_equity=0.0,
        peak_equity=0.0,
        session_equity=nan,
        latencies_ms={},
        orders=(),
        feed="",
        broker="",
    )
    text = shown(view(status))
    assert "nan" not in text
    assert row(text, "AAPL") == ["AAPL", "–", "0.0", "–", "10.00", "0.0", "0.0", "–", "+1.500", "10.00", "–"]
    assert row(text, "GOOG")[2] == "0.0"
    assert "no bar yet" in text
    assert "feed ○ unknown" in text


def test_before_the_first_step():
    assert "waiting for the first bar, 3 min" in shown(view(None, bar_age=200.0))


def test_signs_and_ages():
    assert [signed(x, 1) for x in (1234.56, -1234.56, -0.04, 0.0, math.nan)] == [
        "+1,234.6",
        "−1,234.6",
        "0.0",
        "0.0",
        "–",
    ]
    assert [age_text(x) for x in (-1.0, 7.9, 200.0, 7500.0, 260_000.0)] == [
        "0 s",
        "7 s",
        "3 min",
        "2 h 5 min",
        "3 days",
    ]


# --- time ------------------------------------------------------------------------------------------------------------


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.clock = Clock(lambda: self.seconds, lambda: NOW)

    def step(self, number: int, *, after: float, **fields: Any) -> None:
        self.seconds += after
        self.clock.take(replace(STATUS, step=number, time=CLOSE + number * 60_000_000_000, **fields))


def test_numbers_go_stale_when_bars_stay_away_for_longer_than_usual():
    hands = Hands()
    for number in range(5):
        hands.step(number, after=60.0)
    hands.seconds += 179.0
    assert not hands.clock.view().stale
    hands.seconds += 2.0
    assert hands.clock.view().stale
    assert hands.clock.view().bar_age == 181.0
    # A new picture without a new bar makes nothing fresh but the connections.
    hands.step(4, after=0.0)
    assert hands.clock.view().stale
    assert hands.clock.view().seen_age == 0.0
    hands.step(5, after=1.0)
    assert not hands.clock.view().stale


def test_a_fast_replay_is_stale_after_seconds():
    hands = Hands()
    for number in range(0, 50, 10):
        hands.step(number, after=0.13)
    hands.seconds += 6.0
    assert hands.clock.view().stale
    assert not hands.clock.view(ended=True).stale


def test_at_alpaca_the_age_is_that_of_the_bar_itself():
    hands = Hands()
    hands.step(1, after=0.0, venue="Alpaca paper")
    assert hands.clock.view().bar_age > 10 * 365 * 86_400
    assert hands.clock.view().stale


def test_drawdown_from_the_highest_equity_of_the_run():
    hands = Hands()
    hands.step(1, after=1.0, equity=99_000.0, peak_equity=110_000.0)
    assert "−10.00 %" in shown(hands.clock.view())


# --- the screen ------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    """Stands in for stderr, as a terminal; tells when a text was written."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self.changed:
            written = super().write(text)
            self.changed.notify_all()
        return written

    def shows(self, text: str) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: text in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue()), 10.0)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "120"), ("LINES", "40")):
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


class Pictures:
    """Counts how often a picture is asked for."""

    def __init__(self) -> None:
        self.asked = 0
        self.status = STATUS

    def __call__(self) -> Status:
        self.asked += 1
        return self.status


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "nextbar-watch"]


def test_a_step_is_shown_at_once_and_the_last_picture_stays(terminal: Terminal):
    pictures = Pictures()
    with redirect_stderr(terminal), watching() as on_status:
        assert terminal.shows("waiting for the first bar")
        on_status(pictures)
        assert terminal.shows("step 141")
        assert threads() == ["nextbar-watch"]
        pictures.status = replace(STATUS, step=142)
    assert threads() == []
    text = terminal.getvalue()
    assert text.rindex("step 142") > text.rindex("step 141")
    assert text.rindex("run ended") < text.rindex("\x1b[?25h")  # the cursor is back


def test_called_again_at_once_it_asks_for_no_picture(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    pictures = Pictures()
    monkeypatch.setattr(watch, "_GAP_SECONDS", 60.0)
    screen = watch._Screen(Console(file=terminal))
    for _ in range(1000):
        screen.on_status(pictures)
    assert pictures.asked == 1


def test_a_step_that_was_passed_over_is_shown_in_the_pause_that_follows(terminal: Terminal):
    pictures = Pictures()
    with redirect_stderr(terminal), watching() as on_status:
        on_status(pictures)
        pictures.status = replace(STATUS, step=142)
        on_status(pictures)
        assert terminal.shows("step 142")


def test_a_picture_that_fails_for_a_moment_is_asked_for_anew(terminal: Terminal):
    answers = iter([STATUS, RuntimeError("dictionary changed size during iteration")])

    def picture() -> Status:
        answer = next(answers, replace(STATUS, step=142))
        if isinstance(answer, Exception):
            raise answer
        return answer

    with redirect_stderr(terminal), watching() as on_status:
        on_status(picture)
        on_status(picture)
        assert terminal.shows("step 142")


def test_a_run_that_fails_before_its_first_step_leaves_no_view(terminal: Terminal):
    with pytest.raises(ValueError, match="no bundle"), redirect_stderr(terminal), watching():
        raise ValueError("no bundle")
    assert threads() == []
    assert "\x1b[?25h" in terminal.getvalue()


def test_a_terminal_that_goes_away_does_not_end_the_run(terminal: Terminal, monkeypatch: pytest.MonkeyPatch):
    pictures = Pictures()
    with redirect_stderr(terminal), watching() as on_status:
        assert terminal.shows("waiting")

        def gone(text: str) -> int:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(terminal, "write", gone)
        on_status(pictures)
        pictures.status = replace(STATUS, halted="risk")
        on_status(pictures)
    assert threads() == []


@pytest.mark.parametrize(
    "prepare", [lambda m, t: m.setattr(t, "isatty", lambda: False), lambda m, t: m.setenv("TERM", "dumb")]
)
def test_off_a_terminal_nothing_is_written_and_nothing_asked(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, prepare: Callable[[pytest.MonkeyPatch, Terminal], None]
):
    prepare(monkeypatch, terminal)
    pictures = Pictures()
    with redirect_stderr(terminal), watching() as on_status:
        on_status(pictures)
        assert threads() == []
    assert terminal.getvalue() == ""
    assert pictures.asked == 0


# --- the picture in the documentation --------------------------------------------------------------------------------


def svg(what: View) -> str:
    """The view as an SVG that names no network address but that of its own format."""
    console = Console(width=120, height=40, file=io.StringIO(), record=True, highlight=False, force_terminal=True)
    console.print(what)
    text = console.export_svg(title="nextbar paper configs/quickstart.yaml --replay", theme=SVG_EXPORT_THEME)
    text = re.sub(r"@font-face \{.*?\}", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = text.replace(
        "font-family: Fira Code, monospace", "font-family: Menlo, 'DejaVu Sans Mono', Consolas, monospace"
    )
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


def addresses(text: str) -> set[str]:
    return set(re.findall(r"https?://[^\"' )]+", text)) - {"http://www.w3.org/2000/svg"}


def test_the_picture_in_the_documentation_names_no_address():
    assert addresses(svg(view())) == set()
    assert addresses((Path(__file__).parents[2] / "docs" / "paper.svg").read_text()) == set()


def replayed(folder: Path) -> View:
    """The view of the quickstart's replay after some months; the folder holds its trained bundle."""
    from engine.paper import paper
    from engine.run_file import load_config

    clock, views = Clock(time.monotonic, lambda: datetime.now(UTC)), []

    def on_status(picture: Callable[[], Status]) -> None:
        clock.take(picture())
        views.append(clock.view())

    config = load_config(Path(__file__).parents[2] / "configs" / "quickstart.yaml")
    paper(config, root=folder, now=datetime.now(UTC), replay=True, on_status=on_status)
    return views[_PICTURED - 1]


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(svg(replayed(Path(sys.argv[1]))))

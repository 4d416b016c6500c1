"""What the terminal shows of a paper run: each forecast before its bar has come, and then beside what came."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from engine.live.status import Forecasted, Held, OpenOrder, Status
from engine.report.catalogue import NOTHING

_NEW_YORK = ZoneInfo("America/New_York")
_NARROW = 100
_MOST_SYMBOLS = 12
_MOST_ORDERS = 3
# Of the lines above and below symbols, orders and events, with one left for the prompt.
_FIXED_LINES = 15
# A state of a connection that was seen so long ago may have changed.
_DOUBTFUL_SECONDS = 5.0
_LEAST_WIDTHS = {"came": 6, "sign/\n80 %": 8, "held": 6, "average": 7, "P&L": 6}


@dataclass(frozen=True, kw_only=True)
class View:
    """What is on the screen at one moment; rich renders it.

    Attributes:
        status: the newest picture; None before the first step.
        now: UTC.
        bar_age: seconds since the last bar came; since the start before the first one.
        seen_age: seconds since the picture was taken.
        stale: no bar has come for much longer than usual.
        ended: the run is over, and nothing will change.
    """

    status: Status | None
    now: datetime
    bar_age: float = 0.0
    seen_age: float = 0.0
    stale: bool = False
    ended: bool = False

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields what fits the width and the height of the console."""
        if self.status is None:
            waited = f"waiting for the first bar, {age_text(self.bar_age)}"
            yield _apart(_banner("paper trading, no real money"), Text(f"{waited}, now {self.now:%H:%M:%S} UTC"))
            return
        yield from _layout(self, self.status, narrow=options.max_width < _NARROW, height=console.size.height)


def _layout(view: View, status: Status, *, narrow: bool, height: int) -> Iterator[RenderableType]:
    """From top to bottom; events and then symbols give way when the terminal is low."""
    orders = _order_lines(status.orders)
    room = height - _FIXED_LINES - len(orders) - (2 if status.halted or status.paused else 0)
    most = max(1, min(_MOST_SYMBOLS, room))
    symbols = _by_interest(status, most)
    shown = symbols[:most]
    yield _apart(_banner(f"{status.venue}  {status.run}"), Text(f"step {status.step:,}"))
    now = Text("run ended", style="bold") if view.ended else Text(f"now {view.now:%H:%M:%S} UTC")
    yield _apart(_last_bar(view, status), now)
    if status.halted:
        yield Text.assemble((" HALTED ", "bold white on red"), (f" {status.halted}", "bold red"))
    elif status.paused:
        yield Text.assemble((" NO ENTRIES ", "black on yellow"), (f" {status.paused}", "yellow"))
    yield Text()
    yield _symbols(view, status, shown, narrow=narrow and bool(status.forecasts))
    if len(shown) < len(symbols):
        yield _line(f"and {len(symbols) - len(shown)} more symbols, not shown", "dim")
    yield Text()
    yield _account(view, status, narrow=narrow)
    yield Text()
    yield _line(_counts(status))
    yield from orders
    yield _line(_latencies(status))
    yield _connections(view, status)
    left = room - len(shown)
    for event in status.log[-left:] if left > 0 else ():
        yield _line(f"  {event}", "dim")


def _apart(left: Text, right: Text) -> Table:
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    line.add_column(no_wrap=True, justify="right")
    line.add_row(left, right)
    return line


def _banner(text: str) -> Text:
    return Text.assemble((" PAPER ", "black on yellow"), f" {text}")


def _last_bar(view: View, status: Status) -> Text:
    if not status.time:
        return Text(f"no bar yet, {age_text(view.bar_age)}")
    utc = datetime.fromtimestamp(status.time // 1_000_000_000, UTC)
    line = Text(f"last bar {utc:%Y-%m-%d %H:%M} UTC, {utc.astimezone(_NEW_YORK):%H:%M} New York")
    if not view.ended:
        line.append(f", {age_text(view.bar_age)} ago")
    return Text("STALE, ", style="bold yellow") + line if view.stale else line


def _by_interest(status: Status, most: int) -> list[str]:
    """Symbols in order, those with a position, an order or a fresh forecast first where not all can be shown."""
    symbols = sorted({*status.closes, *status.forecasts, *status.positions})
    if len(symbols) <= most:
        return symbols
    ordered = {order.symbol for order in status.orders}
    fresh = {symbol for symbol, forecast in status.forecasts.items() if forecast.made >= status.time}
    return sorted(symbols, key=lambda s: (s not in status.positions, s not in ordered, s not in fresh, s))


def _symbols(view: View, status: Status, shown: list[str], *, narrow: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1 if narrow else 2, 0, 0), header_style="bold")
    titles, ahead = ["close"], list[str]()
    if status.forecasts:
        horizon = max(forecast.horizon for forecast in status.forecasts.values())
        bars = "bar" if horizon == 1 else f"{horizon} bars"
        ahead = [f"next {bars}\nbps", "80 %\ninterval", "as a\nprice"]
        titles += [*ahead, f"last {bars}\nsaid", "came", "sign/\n80 %"]
    titles += ["held", "P&L"] if narrow else ["held", "average", "P&L"]
    table.add_column("symbol", vertical="bottom", no_wrap=True)
    for title in titles:
        # Wide enough from the start, so that nothing moves sideways when the first position comes.
        least = None if narrow else _LEAST_WIDTHS.get(title)
        style = "cyan" if title in ahead else ""
        table.add_column(Text(title, style), justify="right", vertical="bottom", no_wrap=True, min_width=least)
    for symbol in shown:
        cells = [Text(symbol), Text(price_text(status.closes.get(symbol, math.nan)))]
        if status.forecasts:
            cells += _forecast_cells(status.forecasts.get(symbol), status.time)
            cells += _came_cells(status.came.get(symbol), 0 if narrow else 1)
        held = _held_cells(status.positions.get(symbol), 0 if narrow else 2)
        cells += [held[0], held[2]] if narrow else held
        table.add_row(*(_grey(cells) if view.stale else cells))
    return table


def _forecast_cells(forecast: Forecasted | None, bar_time: int) -> list[Text]:
    """Of a bar that is not there yet. A symbol without a bar at this step has an older forecast, which goes grey."""
    if forecast is None:
        return [Text(NOTHING, style="dim")] * 3
    old = forecast.made < bar_time
    interval = NOTHING
    if not math.isnan(forecast.lower) and not math.isnan(forecast.upper):
        interval = f"{signed(1e4 * forecast.lower, 0)} {signed(1e4 * forecast.upper, 0):>4}"
    price = price_text(forecast.price * math.exp(forecast.forecast))
    number = signed(1e4 * forecast.forecast, 1)
    cells = [Text(f"old {number}" if old else number, style=f"bold {_colour(forecast.forecast)}")]
    cells += [Text(interval), Text(price)]
    return _grey(cells) if old else cells


def _came_cells(came: tuple[Forecasted, float] | None, places: int) -> list[Text]:
    if came is None:
        return [Text(NOTHING, style="dim")] * 3
    said, realised = came
    verdict, style = "", ""
    if said.forecast and realised:
        hit = (said.forecast > 0.0) == (realised > 0.0)
        verdict, style = ("hit", "green") if hit else ("miss", "red")
    if not math.isnan(said.lower) and not math.isnan(said.upper):
        verdict = f"{verdict or NOTHING}/{'in' if said.lower <= realised <= said.upper else 'out'}"
    numbers = [Text(signed(1e4 * said.forecast, 1)), Text(signed(1e4 * realised, places))]
    return [*numbers, Text(verdict or NOTHING, style=style)]


def _held_cells(held: Held | None, places: int) -> list[Text]:
    if held is None:
        return [Text(NOTHING, style="dim"), Text(), Text()]
    gain = held.quantity * (held.price - held.average_price)
    return [
        Text(signed(held.quantity, 0 if held.quantity == round(held.quantity) else 3)),
        Text(price_text(held.average_price)),
        Text(signed(gain, places), style=_colour(gain)),
    ]


def _account(view: View, status: Status, *, narrow: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1 if narrow else 3, 0, 0), header_style="bold")
    places = 0 if narrow else 2
    gross = sum(abs(held.quantity * held.price) for held in status.positions.values())
    figures: dict[str, tuple[str, str]] = {"equity": (_plain(status.equity, places), "bold")}
    for name, base in (("since start", status.starting_equity), ("session", status.session_equity)):
        gain = status.equity - base
        figures[name] = (signed(gain, places), _colour(gain))
        figures[f"% {name.split()[-1]}"] = (f"{signed(_percent(gain, base), 2)} %", _colour(gain))
    figures["drawdown"] = (f"{signed(_percent(status.equity - status.peak_equity, status.peak_equity), 2)} %", "")
    figures["cash"] = (_plain(status.cash, places), "")
    figures["exposure"] = (f"{_plain(_percent(gross, status.equity), 1)} %", "")
    for name in figures:
        table.add_column("" if name.startswith("%") else name, justify="right", no_wrap=True)
    cells = [Text(text, style=style) for text, style in figures.values()]
    table.add_row(*(_grey(cells) if view.stale else cells))
    return table


def _order_lines(orders: tuple[OpenOrder, ...]) -> list[Text]:
    lines = [
        f"  #{order.number} {order.side} {order.quantity:g} {order.symbol} {order.prices or order.type}"
        + (f", decided {datetime.fromtimestamp(order.decided // 1_000_000_000, UTC):%Y-%m-%d %H:%M} UTC")
        for order in orders[:_MOST_ORDERS]
    ]
    if len(orders) > _MOST_ORDERS:
        lines.append(f"  and {len(orders) - _MOST_ORDERS} more open orders")
    return [_line(line) for line in lines]


def _counts(status: Status) -> str:
    counts = f"{len(status.orders)} open, {status.sent} sent, {status.filled} filled, {status.turned_down} turned down"
    return f"orders  {counts}"


def _latencies(status: Status) -> str:
    names = {"decide": "bar to decision", "send": "order to answer", "fill": "sent to fill"}
    known = [f"{names.get(name, name)} {value:,.1f} ms" for name, value in status.latencies_ms.items()]
    return f"p50     {', '.join(known) or NOTHING}"


def _connections(view: View, status: Status) -> Text:
    """States of the connections as last seen; one that was seen long ago is not claimed to be so still."""
    again = f"   {status.reconnects} reconnects" if status.reconnects != 1 else "   1 reconnect"
    if view.ended:
        return _line(f"feed and broker closed{again}")
    line = Text(no_wrap=True, overflow="ellipsis")
    doubtful = view.seen_age > _DOUBTFUL_SECONDS
    for name, state in (("feed", status.feed), ("broker", status.broker)):
        lost = state == "lost"
        style = "dim" if doubtful or not state else "bold red" if lost else "green"
        line.append(f"{name} ")
        line.append(f"{'○' if doubtful or lost or not state else '●'} {state or 'unknown'}", style=style)
        line.append("   ")
    line.append(again.strip())
    if doubtful:
        line.append(f"   as seen {age_text(view.seen_age)} ago", style="dim")
    return line


# --- cells -----------------------------------------------------------------------------------------------------------


def signed(value: float, places: int) -> str:
    """A number with its sign in front, and none on a zero; a dash for NaN."""
    if not math.isfinite(value):
        return NOTHING
    text = f"{value:+,.{places}f}"
    zero = float(f"{value:.{places}f}") == 0.0
    return text[1:] if zero else text.replace("-", "−")


def price_text(value: float) -> str:
    """A price; with more places when it is below 1."""
    if not math.isfinite(value):
        return NOTHING
    return f"{value:.4f}" if 0.0 < value < 1.0 else f"{value:.2f}"


def age_text(seconds: float) -> str:
    """``7 s``, ``3 min``, ``2 h 5 min``, ``3 days``."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    if whole < 7_200:
        return f"{whole // 60} min"
    if whole < 172_800:
        return f"{whole // 3600} h {whole // 60 % 60} min"
    return f"{whole // 86_400} days"


def _plain(value: float, places: int) -> str:
    return f"{value:,.{places}f}".replace("-", "−") if math.isfinite(value) else NOTHING


def _percent(part: float, whole: float) -> float:
    return 100.0 * part / whole if whole else math.nan


def _colour(value: float) -> str:
    return "green" if value > 0.0 else "red" if value < 0.0 else ""


def _grey(cells: list[Text]) -> list[Text]:
    return [Text(cell.plain, style="dim") for cell in cells]


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")

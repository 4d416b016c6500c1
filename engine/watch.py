"""The live view of a paper run in the terminal: when a picture of the run is taken, and when it is drawn."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from statistics import median

from rich.console import Console
from rich.live import Live

from engine.live.status import Status
from engine.watch_layout import View

OnStatus = Callable[[Callable[[], Status]], None]

_GAP_SECONDS = 0.125
_IDLE_SECONDS = 0.5
# A picture that is older is taken anew, so that a lost connection shows although no bar comes.
_RENEW_SECONDS = 2.0
_FIRST_LIMIT_SECONDS = 180.0


@contextmanager
def watching() -> Iterator[OnStatus]:
    """Shows the run on a terminal, and nothing anywhere else; the last picture stays on the screen.

    Yields:
        To be called after each step, by the thread that runs: it returns at once, and asks for a picture 8 times a
        second at most. A thread of its own draws, so that ages grow and stale numbers go grey while nothing comes.
    """
    console = Console(stderr=True, highlight=False)
    if not sys.stderr.isatty() or not console.is_interactive:
        yield lambda picture: None
        return
    screen = _Screen(console)
    screen.start()
    try:
        yield screen.on_status
    finally:
        screen.stop()


class Clock:
    """What becomes of the pictures over time: how old they are."""

    def __init__(self, monotonic: Callable[[], float], utc_now: Callable[[], datetime]) -> None:
        self._monotonic, self._utc_now = monotonic, utc_now
        self._status: Status | None = None
        self._seen = self._moved = monotonic()
        self._gaps: deque[float] = deque(maxlen=9)

    def take(self, status: Status) -> None:
        """A new picture."""
        now, before = self._monotonic(), self._status
        if before is None or (status.step, status.time) != (before.step, before.time):
            steps = max(1, status.step - (before.step if before else 0))
            if before is not None:
                self._gaps.append((now - self._moved) / steps)
            self._moved = now
        self._status, self._seen = status, now

    @property
    def seen_age(self) -> float:
        """Seconds since the last picture."""
        return self._monotonic() - self._seen

    def view(self, *, ended: bool = False) -> View:
        """The newest picture as it is to be shown now."""
        status, utc_now = self._status, self._utc_now()
        age = self._monotonic() - self._moved
        if status is not None and status.venue.startswith("Alpaca") and status.time:
            # The monotonic clock may stand still while a laptop sleeps; the bar's own time does not.
            age = max(age, utc_now.timestamp() - status.time / 1e9)
        usual = median(self._gaps) if self._gaps else _FIRST_LIMIT_SECONDS
        limit = max(5.0, min(3.0 * usual, usual + 120.0)) if self._gaps else _FIRST_LIMIT_SECONDS
        return View(
            status=status,
            now=utc_now,
            bar_age=age,
            seen_age=self.seen_age,
            stale=age > limit and not ended,
            ended=ended,
        )


class _Screen:
    """Takes pictures in the run's thread, and draws them in its own."""

    def __init__(self, console: Console) -> None:
        self._clock = Clock(time.monotonic, lambda: datetime.now(UTC))
        self._ended = False
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._done = threading.Event()
        self._picture: Callable[[], Status] | None = None
        self._called = self._taken = -math.inf
        self._missed = False
        self._live = Live(
            console=console,
            auto_refresh=False,
            get_renderable=lambda: self._clock.view(ended=self._ended),
            redirect_stdout=False,
            vertical_overflow="crop",
        )
        self._thread = threading.Thread(target=self._draw, name="nextbar-watch", daemon=True)

    def on_status(self, picture: Callable[[], Status]) -> None:
        """Take a picture, unless the last one is too young."""
        now = time.monotonic()
        self._picture, self._called = picture, now
        self._missed = now - self._taken < _GAP_SECONDS
        if not self._missed:
            self._taken = now
            self._take(picture)
            self._news.set()

    def start(self) -> None:
        """Begin to draw."""
        self._live.start(refresh=True)
        self._thread.start()

    def stop(self) -> None:
        """Draw the last picture, and give the terminal back."""
        self._ended = True
        self._done.set()
        self._news.set()
        self._thread.join()
        if self._picture is None:
            self._live.transient = True
        else:
            self._take(self._picture)
        # A terminal that is gone must not hide how the run ended.
        with suppress(OSError):
            self._live.stop()

    def _draw(self) -> None:
        # Whatever becomes of the terminal, the run goes on.
        with suppress(OSError):
            while not self._done.is_set():
                self._news.wait(_GAP_SECONDS if self._missed else _IDLE_SECONDS)
                self._news.clear()
                self._renew()
                self._live.refresh()
                self._done.wait(_GAP_SECONDS)

    def _renew(self) -> None:
        """While the run waits: a picture of what on_status passed over, and now and then of the connections.

        The run's thread may begin a step at this very moment. A picture that is then half of the step before is
        followed by the step's own one; a dictionary that grows meanwhile raises RuntimeError, and the next turn asks
        anew.
        """
        picture, quiet = self._picture, time.monotonic() - self._called
        if picture is None:
            return
        if self._missed and quiet >= 2.0 * _GAP_SECONDS:
            self._missed = False
        elif quiet < _RENEW_SECONDS or self._clock.seen_age < _RENEW_SECONDS:
            return
        with suppress(RuntimeError):
            self._take(picture)

    def _take(self, picture: Callable[[], Status]) -> None:
        # Taken and kept in one, so that an older picture never follows a newer one.
        with self._lock:
            self._clock.take(picture())

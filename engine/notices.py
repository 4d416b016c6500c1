"""Notifications of a run's fills, halts and end to wherever its owner reads them, through apprise.

``NEXTBAR_NOTIFY`` holds one or more of apprise's URLs. They are secrets: no message and no run file ever shows one. A
service that is slow or dead holds up nothing: messages are sent by a thread of their own, and what cannot be delivered
is counted.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from engine.credentials import DOTENV, read_dotenv
from engine.errors import BrokerError, ConfigError

NOTIFY = "NEXTBAR_NOTIFY"

Send = Callable[[str, str], bool]
"""Delivers a title and a body; whether they arrived."""

# Between two URLs: white space, or a comma before the next scheme. Other commas belong to a URL.
_BETWEEN = re.compile(r"\s*,\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)|\s+")
# Fills that come within so many seconds of the first are told in one message, of so many lines at most.
_JOIN_SECONDS = 3.0
_MOST_LINES = 20
_MOST_WAITING = 256
_MOST_CHARACTERS = 500
_CLOSE_SECONDS = 5.0


class Notifier(Protocol):
    """What a run tells of itself; each call returns at once, whatever the service does."""

    def filled(self, run: str, side: str, quantity: float, symbol: str, price: float) -> None:
        """Tell of one fill; ``side`` is buy or sell, ``quantity`` in shares."""

    def halted(self, run: str, reason: str) -> None:
        """Tell that a risk limit stopped trading."""

    def trouble(self, run: str, sentence: str) -> None:
        """Tell of what a person should look at."""

    def ended(self, run: str, how: str) -> None:
        """Tell how the run ended: completed, stopped, halted or failed."""

    def close(self, timeout: float = _CLOSE_SECONDS) -> str:
        """Send what waits, for so many seconds at most; one sentence on what was not delivered, empty if all was."""


class Silence:
    """A notifier that tells nobody: none is set."""

    def filled(self, run: str, side: str, quantity: float, symbol: str, price: float) -> None:
        """Nothing."""

    def halted(self, run: str, reason: str) -> None:
        """Nothing."""

    def trouble(self, run: str, sentence: str) -> None:
        """Nothing."""

    def ended(self, run: str, how: str) -> None:
        """Nothing."""

    def close(self, timeout: float = _CLOSE_SECONDS) -> str:
        """Nothing was lost."""
        return ""


class _Notice(NamedTuple):
    title: str
    line: str
    is_fill: bool = False


class Messenger:
    """A notifier that sends from a thread of its own, and joins a burst of fills into one message."""

    def __init__(self, send: Send, *, join_seconds: float = _JOIN_SECONDS, most_waiting: int = _MOST_WAITING) -> None:
        """Start the thread.

        Args:
            send: may block and may raise; only the thread waits for it.
            join_seconds: fills are collected for so long before they are told.
            most_waiting: of more notices that wait, fills are left out first.
        """
        self._send = send
        self._join_seconds = join_seconds
        self._most_waiting = most_waiting
        self._changed = threading.Condition()
        self._waiting: deque[_Notice] = deque()
        self._taken = self._delivered = 0
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="nextbar-notices", daemon=True)
        self._thread.start()

    def filled(self, run: str, side: str, quantity: float, symbol: str, price: float) -> None:
        """See ``Notifier``."""
        self._put(_Notice(f"nextbar: {run}", f"{side} {quantity:.9g} {symbol} at {price:.10g}", is_fill=True))

    def halted(self, run: str, reason: str) -> None:
        """See ``Notifier``."""
        self._put(_Notice(f"nextbar: {run} was halted", f"trading stopped: {reason}"))

    def trouble(self, run: str, sentence: str) -> None:
        """See ``Notifier``."""
        self._put(_Notice(f"nextbar: {run} needs a look", sentence))

    def ended(self, run: str, how: str) -> None:
        """See ``Notifier``."""
        self._put(_Notice(f"nextbar: {run} has ended", how))

    def close(self, timeout: float = _CLOSE_SECONDS) -> str:
        """See ``Notifier``. A second call says nothing."""
        with self._changed:
            first, self._closing = not self._closing, True
            self._changed.notify()
        self._thread.join(timeout)
        with self._changed:
            self._waiting.clear()
            taken, lost = self._taken, self._taken - self._delivered
        if not first or not lost:
            return ""
        return f"{lost} of {taken} notifications could not be delivered; check the services that {NOTIFY} names"

    def _put(self, notice: _Notice) -> None:
        line = " ".join(notice.line.split())[:_MOST_CHARACTERS]
        with self._changed:
            if self._closing:
                return
            self._taken += 1
            if len(self._waiting) >= self._most_waiting:
                if notice.is_fill:
                    return
                self._waiting.popleft()
            self._waiting.append(notice._replace(line=line))
            self._changed.notify()

    def _work(self) -> None:
        while batch := self._next():
            lines = [notice.line for notice in batch[:_MOST_LINES]]
            if len(batch) > _MOST_LINES:
                lines.append(f"and {len(batch) - _MOST_LINES} more")
            try:
                arrived = self._send(batch[0].title, "\n".join(lines))
            except Exception:  # whatever a service's plug-in raises: it may hold the URL, and trading goes on
                arrived = False
            with self._changed:
                self._delivered += len(batch) if arrived else 0

    def _next(self) -> list[_Notice]:
        """What is told next: a burst of fills, or one other notice; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if self._waiting and self._waiting[0].is_fill:
                self._changed.wait_for(self._is_burst_over, timeout=self._join_seconds)
            batch: list[_Notice] = []
            while self._waiting and (not batch or self._joins(batch[0], self._waiting[0])):
                batch.append(self._waiting.popleft())
            return batch

    def _is_burst_over(self) -> bool:
        return self._closing or not all(self._joins(self._waiting[0], notice) for notice in self._waiting)

    @staticmethod
    def _joins(first: _Notice, notice: _Notice) -> bool:
        return first.is_fill and notice.is_fill and first.title == notice.title


def from_environment(folder: Path = Path(), environment: Mapping[str, str] | None = None) -> Notifier:
    """The notifier that ``NEXTBAR_NOTIFY`` asks for, from the environment or a ``.env`` file; ``Silence`` without it.

    Args:
        folder: the run file's; its ``.env`` is read where the working folder's says nothing.
        environment: the process's, if None.

    Raises:
        ConfigError: apprise is not installed, knows no such service, or the file cannot be read; shows no URL.
    """
    urls = notify_urls(folder, environment)
    return Messenger(apprise_sender(urls)) if urls else Silence()


def notify_urls(folder: Path = Path(), environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The URLs of ``NEXTBAR_NOTIFY``; empty if it is not set. See ``from_environment``."""
    text = (os.environ if environment is None else environment).get(NOTIFY)
    try:
        for place in (Path(), folder):
            text = read_dotenv(place).get(NOTIFY) if text is None else text
    except BrokerError:
        raise ConfigError(f"{NOTIFY}: the {DOTENV} file could not be read; expected UTF-8 text") from None
    return tuple(url for url in _BETWEEN.split((text or "").strip().strip(",")) if url)


def apprise_sender(urls: tuple[str, ...]) -> Send:
    """Sends to all the URLs; a message has arrived when it has at every one.

    Raises:
        ConfigError: see ``from_environment``.
    """
    try:
        import apprise
    except ImportError:
        raise ConfigError(
            f"{NOTIFY}: notifications need apprise, which is not installed; run `pip install 'nextbar[notify]'`, or "
            "unset it"
        ) from None
    # What it logs of a failure holds addresses; that there was one is counted.
    logger = logging.getLogger("apprise")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    services = apprise.Apprise(asset=apprise.AppriseAsset(app_id="nextbar", app_desc="nextbar"))
    for position, url in enumerate(urls, start=1):
        if not _is_added(services, url):
            raise ConfigError(
                f"{NOTIFY}: apprise knows no service of the form of URL {position} of {len(urls)}; expected such as "
                "json://host:port/path, as apprise's documentation lists them"
            )

    def send(title: str, body: str) -> bool:
        return bool(services.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT))

    return send


def _is_added(services: object, url: str) -> bool:
    try:
        return bool(services.add(url))  # type: ignore[attr-defined]
    except Exception:  # a plug-in that cannot read its URL may raise anything, with the URL in it
        return False

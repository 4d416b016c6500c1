"""Alpaca as a source of history: what a run file asks for, in batches, at the pace that Alpaca allows."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path

import pandas as pd

from engine.config import DataConfig
from engine.credentials import Credentials, find_credentials
from engine.data.alpaca import DEFAULT_ADJUSTMENT, DEFAULT_FEED, exchange_time, fetch_raw
from engine.data.cache.ranges import Fetched
from engine.data.calendars import ZONE
from engine.data.patience import patient
from engine.errors import BrokerError


class AlpacaHistory:
    """Bars of Alpaca's feed, or of an exchange on this machine in its place; a ``fetching.Source``.

    The bars of an exchange on this machine lie apart in the cache. It may be another one tomorrow, with other bars, so
    that they are looked at again each time; and the present moment is the one of its clock.
    """

    name = "alpaca"
    most_symbols = 100

    def __init__(
        self,
        data: DataConfig,
        folder: Path,
        *,
        now: pd.Timestamp | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """No network, and no keys, are needed yet.

        Args:
            data: timeframe, base, feed and adjustment are used.
            folder: the run file's, where a ``.env`` may lie.
            now: the present moment, UTC; by the machine's or the exchange's clock, if None.
            sleep, clock: wait so many seconds; seconds since 1970.
        """
        self.timeframe = data.base or data.timeframe
        self._feed, self._adjustment = data.feed or DEFAULT_FEED, data.adjustment or DEFAULT_ADJUSTMENT
        self.adjustment = "none" if self._adjustment == "raw" else self._adjustment
        self.words = f"the {self._feed} feed"
        self._folder = folder
        self._now = now
        self._patience = functools.partial(patient, sleep=sleep, clock=clock)

    @functools.cached_property
    def _credentials(self) -> Credentials:
        return find_credentials(self._folder)

    @functools.cached_property
    def lasting(self) -> bool:
        """Whether it is Alpaca itself."""
        try:
            return not self._credentials.local
        except BrokerError:
            return True  # bars that are in the cache need no keys

    @property
    def variant(self) -> str:
        """Feed and adjustment, and that it is an exchange on this machine."""
        return f"{self._feed}-{self._adjustment}" + ("" if self.lasting else "-practice")

    def now(self) -> pd.Timestamp:
        """The present moment."""
        if self._now is not None:
            return self._now
        return pd.Timestamp.now("UTC") if self.lasting else exchange_time(self._credentials)

    def fetch(self, symbols: Sequence[str], first: date, last: date | None, *, now: pd.Timestamp) -> dict[str, Fetched]:
        """See ``fetching.Source``."""
        frames = fetch_raw(
            self._credentials,
            symbols,
            self.timeframe,
            start=pd.Timestamp(first, tz=ZONE),
            end=None
            if last is None
            else pd.Timestamp(last + timedelta(days=1), tz=ZONE) - pd.Timedelta(microseconds=1),
            feed=self._feed,
            adjustment=self._adjustment,
            now=now,
            patience=self._patience,
        )
        return {symbol: Fetched(frame=frame) for symbol, frame in frames.items()}

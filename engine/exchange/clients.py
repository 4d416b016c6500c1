"""An account's connections, and what has been pushed to them."""

from __future__ import annotations

from engine.exchange.account import Account
from engine.exchange.faults import ArmedFaults
from engine.exchange.faulty_line import FaultyLine
from engine.exchange.outlets import Outlet


class Client:
    """An account and its connections; one data connection, any number of trading streams.

    What is lost on a line that makes faults, or with a connection that a fault has cut in this step, counts as pushed;
    and after a state was restored, ``told`` is what its last step told, as if it had been heard.

    Attributes:
        bars, trade_updates: messages pushed to its connections since the exchange started; an update is counted once,
            however many streams it went to.
        shown: bar messages pushed in the last step.
        told: execution ids of the trade updates pushed since the last step began, and before it since the step before.
        hears_trades, hears_bars: whether somebody was there to hear the last step's updates, and its bars.
    """

    def __init__(self, account: Account, faults: ArmedFaults | None = None) -> None:
        self.account = account
        self.bars = 0
        self.trade_updates = 0
        self.shown = 0
        self.told: list[str] = []
        self.hears_trades = self.hears_bars = False
        self.data: Outlet | None = None
        self.trading: set[Outlet] = set()
        self._told_before = 0
        self._faults = faults
        self._line = None if faults is None else FaultyLine(faults)
        self._cut: list[Outlet] = []

    def listen(self, outlet: Outlet) -> None:
        """Send trade updates to this outlet too."""
        self.trading.add(outlet)
        self.account.tell = self._tell

    def hang_up(self, outlet: Outlet) -> None:
        """Forget an outlet whose connection has ended."""
        self.trading.discard(outlet)
        if not self.trading:
            self.account.tell = None
        if self.data is outlet:
            self.data = None

    # --- a step ----------------------------------------------------------------------------------------------------

    def begin_step(self) -> None:
        """Forget what was told up to the end of the step before, and what it showed."""
        del self.told[: self._told_before]
        self._told_before = 0
        self.shown = 0
        self.hears_trades = bool(self.trading)
        self.hears_bars = self.data is not None and any(self.data.symbols.values())

    def begin_matching(self) -> None:
        """Cut the connections that a fault cuts before the step's messages."""
        if self._faults is None or self._line is None:
            return
        if self.data is not None and self._faults.take("drop-bars"):
            self._cut.append(self.data)
        if self.trading and self._faults.take("drop-trades"):
            self._cut += self.trading
        for outlet in self._cut:
            outlet.cut()
        self._line.begin_step()

    def end_matching(self) -> None:
        """All updates of the step are told."""
        if self._line is not None:
            self._send_updates(self._line.end_matching())

    def end_step(self) -> None:
        """All bars are shown; what is told from here on is told between two steps, and kept over the next."""
        self._told_before = len(self.told)
        if self._line is None:
            return
        self._send_updates(self._line.end_step("update"))
        for message in self._line.end_step("bar"):
            if self.data is not None:
                self.data.push(message)
        for outlet in self._cut:
            self.hang_up(outlet)
        self._cut.clear()

    def begin_repeated_step(self) -> None:
        """Note what a step tells that happens again from a state: its client may ask for the answer once more."""
        self.told.clear()
        self.account.tell = lambda execution, message: self.told.append(execution)

    def end_repeated_step(self) -> None:
        """What comes after it until the state is restored was told to somebody who is gone."""
        self.account.tell = None
        self._told_before = len(self.told)

    # --- messages --------------------------------------------------------------------------------------------------

    def show(self, outlet: Outlet, message: bytes, *, counted: bool) -> None:
        """Push a bar to the data connection; ``counted`` among ``bars``."""
        if self._line is None:
            pushed = outlet.push(message)
        else:
            pushed = all(outlet.push(one) for one in self._line.bar(message))
        self.shown += pushed
        self.bars += pushed and counted

    def _tell(self, execution: str, message: bytes) -> None:
        self.trade_updates += 1
        self.told.append(execution)
        self._send_updates([message] if self._line is None else self._line.update(message))

    def _send_updates(self, messages: list[bytes]) -> None:
        for message in messages:
            for outlet in self.trading:
                outlet.push(message)

"""Our ledger held against the broker's account: what is not explained, and for how long it has not been."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import NextbarError
from engine.live.rest import NoAnswer
from engine.trading.orders import QUANTITY_EPSILON

if TYPE_CHECKING:
    from engine.live.connection import Connection
    from engine.live.journal import Journal
    from engine.live.run import LiveRun

_VERIFY_SECONDS = 60.0
_CENT = 0.01
# The broker books each execution in whole cents.
_ROUNDING = 0.005
# Quantities that sums of fractions may differ by from one look to the next.
_SAME_QUANTITY = 1e-6


@dataclass(frozen=True)
class Account:
    """What the broker says: cash gained since the start (account currency), and signed quantities by symbol."""

    gained: float
    held: Mapping[str, float]


@dataclass(frozen=True)
class Gap:
    """A difference between the broker's account and our ledger.

    Attributes:
        symbol: whose position it is; empty for cash.
        sizes: the broker's figure less ours, signed; of cash twice, with our costs and without them.
        sentence: it in words.
    """

    symbol: str
    sizes: tuple[float, ...]
    sentence: str

    def is_same(self, other: Gap, tolerance: float) -> bool:
        """Whether both are one difference, seen twice; ``tolerance`` of cash, account currency."""
        within = _SAME_QUANTITY if self.symbol else tolerance
        pairs = zip(self.sizes, other.sizes, strict=True)
        return self.symbol == other.symbol and any(abs(ours - theirs) <= within for ours, theirs in pairs)


def gaps(account: Account, *, cash: float, costs: float, held: Mapping[str, float], tolerance: float) -> list[Gap]:
    """Where the broker's account differs from our ledger.

    Args:
        cash: what our account has gained since the start, account currency.
        costs: the part of ``cash`` that is commission and interest, negative; the broker may not have charged it.
        held: symbol -> signed quantity by our ledger; symbols that are not in here are not ours.
        tolerance: by how much cash may differ, account currency.
    """
    found = [
        Gap(symbol, (theirs - ours,), f"{symbol}: {ours:g} by our ledger, {theirs:g} at the broker")
        for symbol, ours in sorted(held.items())
        if abs((theirs := account.held.get(symbol, 0.0)) - ours) > QUANTITY_EPSILON
    ]
    sizes = (account.gained - cash, account.gained - (cash - costs))
    if min(map(abs, sizes)) > tolerance:
        said = f"cash has changed by {cash:.2f} by our ledger, by {account.gained:.2f} at the broker"
        found.append(Gap("", sizes, said))
    return found


class Verifier:
    """Compares now and then; no position is opened once a difference is seen twice, until ledger and account agree.

    A difference of one look may be a fill that is on its way.
    """

    def __init__(self, connection: Connection, cash: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``cash``: what the ledger began with, account currency."""
        self._connection = connection
        self._cash = cash
        self._monotonic = monotonic
        self._next = monotonic() + _VERIFY_SECONDS
        self._before: Sequence[Gap] = ()
        self._wrong: list[str] = []
        self._reason = ""
        self._executions = 0
        self._newest: Any = None

    def look(self, run: LiveRun, journal: Journal) -> None:
        """Compare, if it is time to."""
        if self._monotonic() < self._next:
            return
        self._next = self._monotonic() + _VERIFY_SECONDS
        tolerance = self._tolerance()
        try:
            found = self._gaps(run)
        except NoAnswer as error:
            run.events.append(str(error))
            return
        journal.write("account", differences=[gap.sentence for gap in found])
        # What the executions in between may have been rounded by is no other difference.
        within = _CENT + self._tolerance() - tolerance
        lasting = [gap for gap in found if any(gap.is_same(before, within) for before in self._before)]
        self._before = found
        wrong = lasting or (found if self._reason else [])
        if [gap.symbol for gap in wrong] != self._wrong:
            # Said again only where another thing is wrong: the sums in it move on with every fill.
            self._wrong = [gap.symbol for gap in wrong]
            said = "; ".join(gap.sentence for gap in wrong)
            self._reason = f"the account differs from our ledger: {said}" if wrong else ""
        run.pause(self._reason)

    def at_the_end(self, run: LiveRun, journal: Journal, *, strict: bool) -> list[str]:
        """Compare once more; the differences in words, for the run's remarks.

        Raises:
            NextbarError: ``strict``, and there is a difference: in a replay it is a defect.
            NoAnswer: ``strict``, and the broker does not answer.
        """
        try:
            found = [gap.sentence for gap in self._gaps(run)]
        except NoAnswer as error:
            if strict:
                raise
            found = [f"the account was not compared: {error}"]
        journal.write("account", differences=found)
        if found and strict:
            raise NextbarError(f"our ledger and the exchange differ: {'; '.join(found)}; please report")
        run.events.extend(found)
        return found

    def _gaps(self, run: LiveRun) -> list[Gap]:
        account = self._connection.holdings()
        ledger = run.venue.ledger
        self._count(ledger.fills)
        costs = run.venue.commission_paid + ledger.interest_paid
        ours = _held(ledger.positions, self._connection.symbols)
        return gaps(account, cash=ledger.cash - self._cash, costs=-costs, held=ours, tolerance=self._tolerance())

    def _tolerance(self) -> float:
        return max(_CENT, _ROUNDING * self._executions)

    def _count(self, fills: Sequence[Any]) -> None:
        """Executions so far; the ledger lets go of old ones now and then."""
        for fill in reversed(fills):
            if fill is self._newest:
                break
            self._executions += 1
        self._newest = fills[-1] if fills else None


def _held(positions: Mapping[str, Any], symbols: Collection[str]) -> dict[str, float]:
    """Signed quantities of all symbols that are traded, also of those that were never held."""
    return dict.fromkeys(symbols, 0.0) | {symbol: position.quantity for symbol, position in positions.items()}

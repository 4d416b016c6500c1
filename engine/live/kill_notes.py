"""What a kill writes into the run's journal: closing orders before they are sent, and after."""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import StorageError
from engine.live.account_picture import Told
from engine.live.journal import Journal


class KillNotes:
    """The entries ``kill_intent`` and ``killed``; nothing without a journal.

    Attributes:
        problems: why it could not be written, one sentence each.
    """

    def __init__(self, journal: Journal | None, reason: str, decided: int) -> None:
        """``decided``: end of the last bar that the run has seen, UTC ns."""
        self._journal, self._reason, self._decided = journal, reason, decided
        self.problems: list[str] = []

    def intend(self, closings: Sequence[Told]) -> None:
        """On the disk before they are sent: a kill that is cut off is gone on with by the next one."""
        for order in closings:
            self._write("kill_intent", **self._fields(order))
        self._commit()

    def done(self, closings: Sequence[Told]) -> None:
        """A run that goes on later takes them for its own."""
        fields = [{**self._fields(order), "broker_id": order.broker_id} for order in closings]
        self._write("killed", reason=self._reason, closings=fields)
        self._commit()

    def _fields(self, order: Told) -> dict[str, object]:
        return {
            "client_id": order.client_id,
            "symbol": order.symbol,
            "side": order.side,
            "quantity": order.quantity,
            "decided": self._decided,
        }

    def _write(self, kind: str, **body: object) -> None:
        if self._journal is not None:
            self._journal.write(kind, **body)

    def _commit(self) -> None:
        if self._journal is None:
            return
        try:
            self._journal.commit(durable=True)
        except StorageError as error:
            self.problems.append(f"a restart would have to be told with --accept-broker: {error}")
            self._journal = None

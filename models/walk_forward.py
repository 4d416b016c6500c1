"""Models that take over from one another: each bar is decided on by the one that came last before it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import numpy as np
import numpy.typing as npt

from engine.data.cuts import session_bounds
from models.features import Columns, Floats, Times
from models.predictor import Predictor, Row


def before_session(day: date) -> int:
    """The moment, UTC ns, after which the bars of a New York session end."""
    return int(session_bounds((day, day))[0].as_unit("ns").value)


class Stitched(Predictor):
    """One predictor after another, by the end of the decision bar; NaN until the first one takes over.

    A forecast is to the bit the one that its own predictor makes of these bars. So it depends on the last ``memory``
    bars, and on the time of the last of them.

    Args:
        members: in the order in which they take over.
        after: of each the moment, UTC ns, after which it decides, ascending. Of several with the same moment the last
            one does.
    """

    def __init__(self, members: Sequence[Predictor], *, after: Sequence[int]) -> None:
        self.memory = max(member.memory for member in members)
        self.width = members[0].width
        self._members = tuple(members)
        self._after: Times = np.asarray(after, dtype=np.int64)

    def series(self, columns: Columns) -> Floats:
        """See ``Predictor.series``; a row is NaN where its own predictor knows too few bars."""
        forecasts = np.full((len(columns), self.width), np.nan)
        deciding = self._deciding(columns.times)
        for position, member in enumerate(self._members):
            rows = np.flatnonzero(deciding == position)
            if not len(rows):
                continue
            # Times increase, so that the bars of a member lie side by side.
            start, stop = int(rows[0]), int(rows[-1]) + 1
            first = max(0, start - member.memory + 1)
            forecasts[start:stop] = member.series(columns[first:stop])[start - first :]
        return forecasts

    def latest_of(self, several: Sequence[Columns]) -> list[tuple[Row, list[float]]]:
        """See ``Predictor.latest_of``; also of fewer bars than ``memory``, where the member that decides needs no more.

        Without features where none has taken over yet, or the one that has knows too few bars.
        """
        made: list[tuple[Row, list[float]]] = [((np.nan,) * self.width, [])] * len(several)
        asked: dict[int, list[int]] = {}
        for place, columns in enumerate(several):
            position = int(self._deciding(columns.times[-1:])[0])
            if position >= 0 and len(columns) >= self._members[position].memory:
                asked.setdefault(position, []).append(place)
        for position, places in sorted(asked.items()):
            member = self._members[position]
            own = member.latest_of([several[place][-member.memory :] for place in places])
            for place, answer in zip(places, own, strict=True):
                made[place] = answer
        return made

    def _deciding(self, times: Times) -> npt.NDArray[np.int64]:
        """Place of the member that decides at each time; -1 before the first."""
        return np.searchsorted(self._after, times, side="left").astype(np.int64) - 1

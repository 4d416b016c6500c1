"""What a return is above the median of all symbols' over the same bars: the other thing that a model may forecast."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.features import Floats

Times = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_FEWEST = 2


def excess_of(returns: Floats, starts: Times, ends: Times, counted: Flags) -> Floats:
    """Each return less the median of those counted over the same stretch of time (Fischer & Krauss 2018).

    Only returns that begin and end at the same two bars are compared: nothing that is later than a symbol's own label
    enters it, so that cuts that hold for returns hold for excesses.

    Args:
        returns: log returns of all symbols, [n].
        starts, ends: the bars between which each one lies, UTC ns, [n].
        counted: whose returns make the median, [n]: of a universe the members'. Unknown ones (NaN) never do.

    Returns:
        [n], float64; NaN where fewer than two are counted: there is nothing to be above of.
    """
    taken = counted & ~np.isnan(returns)
    stretches = pd.DataFrame({"start": starts, "end": ends}).groupby(["start", "end"], sort=False).ngroup().to_numpy()
    groups = pd.Series(returns[taken].astype(np.float64)).groupby(stretches[taken])
    medians, counts = groups.median(), groups.size()
    middle = np.full(int(stretches.max(initial=-1)) + 1, np.nan)
    middle[medians.index.to_numpy(dtype=np.int64)] = np.where(counts >= _FEWEST, medians, np.nan)
    return np.asarray(returns - middle[stretches], dtype=np.float64)


def ends_after(times: Times, horizon: int) -> Times:
    """The end of the bar that lies so many bars later, of one symbol's bars [bars]; -1 where there is none."""
    ends = np.full(len(times), -1, dtype=np.int64)
    if len(times) > horizon:
        ends[:-horizon] = times[horizon:]
    return ends

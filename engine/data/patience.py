"""Asking a server that lets only so many requests through in a minute: wait as long as it says, then ask again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

TOO_MANY = 429
_BUSY = (502, 503, 504)

# A limit is by the minute: after so many waits something else is wrong.
_WAITS = 10
_BUSY_WAITS = 3
_LONGEST_SECS = 90.0


def patient(
    request: Callable[..., Any], *, sleep: Callable[[float], None], clock: Callable[[], float]
) -> Callable[..., Any]:
    """The same request, sent again after a wait where the answer is that there were too many, or that it is busy.

    An answer that says that no request is left before the limit's next minute makes the following request wait.

    Args:
        request: gives an answer with ``status_code`` and ``headers``.
        sleep: waits so many seconds.
        clock: seconds since 1970.
    """
    free_at = -math.inf

    def asked(*arguments: Any, **options: Any) -> Any:
        nonlocal free_at
        waits = 0
        while True:
            if clock() < free_at:
                sleep(min(free_at - clock(), _LONGEST_SECS))
            answer = request(*arguments, **options)
            free_at = -math.inf
            if answer.headers.get("X-RateLimit-Remaining") == "0":
                free_at = _reset(answer.headers)
            most = _WAITS if answer.status_code == TOO_MANY else _BUSY_WAITS if answer.status_code in _BUSY else 0
            if waits >= most:
                return answer
            waits += 1
            sleep(seconds_to_wait(answer.headers, now=clock(), waits=waits))

    return asked


def seconds_to_wait(headers: Mapping[str, str], *, now: float, waits: int) -> float:
    """How long an answer asks to wait: by Retry-After, by X-RateLimit-Reset, or else longer each time; 1 to 90 s."""
    after = headers.get("Retry-After")
    seconds = _number(after) if after is not None else _reset(headers) - now
    if after is not None and math.isnan(seconds):
        seconds = _instant(after) - now
    if not math.isfinite(seconds):
        seconds = float(2**waits)
    return min(max(seconds, 1.0), _LONGEST_SECS)


def _reset(headers: Mapping[str, str]) -> float:
    """When the limit begins anew, in seconds since 1970; minus infinity where that is not told."""
    reset = _number(headers.get("X-RateLimit-Reset", ""))
    return -math.inf if math.isnan(reset) else reset


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _instant(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return math.nan

"""Who may call: programs on this machine. A web page that is open on it may not, whatever address it uses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from engine.exchange.refusals import Refusal, forbidden

_HOST = re.compile(rb"(?:\[([^\[\]]*)\]|([^\[\]:]*))(?::[0-9]*)?")
_LONGEST_SHOWN = 80


def is_loopback(host: str) -> bool:
    """Whether the name or address without a port can only be this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def refusal_of_pages(headers: Iterable[tuple[bytes, bytes]]) -> Refusal | None:
    """Why a request may come from a web page, or None.

    Browsers send an ``Origin`` with every socket and every order, programs do not. A page whose own name was made to
    mean this machine (DNS rebinding) needs none, but is known by the name in ``Host``.

    Args:
        headers: with names in any case: uvicorn leaves a socket's as they came, whatever ASGI says.
    """
    named = False
    for name, value in headers:
        name = name.lower()
        if name == b"origin":
            return forbidden(f"this exchange serves programs, not web pages: a request from {_shown(value)} is refused")
        if name == b"host":
            named = True
            if not _names_loopback(value):
                return forbidden(
                    f"this exchange serves this machine only: expected Host 127.0.0.1, localhost or [::1], "
                    f"found {_shown(value)}"
                )
    return None if named else forbidden("this exchange expects a Host header: 127.0.0.1, localhost or [::1]")


@lru_cache(maxsize=64)
def _names_loopback(host: bytes) -> bool:
    parts = _HOST.fullmatch(host)
    return parts is not None and is_loopback((parts[1] or parts[2] or b"").decode("latin-1"))


def _shown(value: bytes) -> str:
    return repr(value[:_LONGEST_SHOWN].decode("latin-1"))

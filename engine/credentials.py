"""Alpaca's paper keys, and where they are sent: to Alpaca's paper endpoint or to a loopback exchange, nowhere else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values

from engine.errors import BrokerError

KEY = "APCA_API_KEY_ID"
SECRET = "APCA_API_SECRET_KEY"
ENDPOINT = "APCA_API_BASE_URL"
DOTENV = ".env"

_PAPER = "paper-api.alpaca.markets"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PATHS = ("", "/", "/v2", "/v2/")

# A key shorter than this would be recognisable from its ends.
_SHORTEST_MASKED = 12


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A key, its secret, and the addresses they belong to; None stands for the SDK's own *paper* address.

    Neither key nor secret is ever shown by ``repr``; use ``masked`` in messages.

    Attributes:
        trading_url, data_url: as the SDK's ``url_override`` wants them, ``http://host:port``.
        trading_stream_url: such as ``ws://host:port/stream``.
    """

    key: str = field(repr=False)
    secret: str = field(repr=False)
    trading_url: str | None = None
    data_url: str | None = None
    trading_stream_url: str | None = None

    @property
    def local(self) -> bool:
        """Whether the endpoint is an exchange on this machine."""
        return self.trading_url is not None

    @property
    def masked(self) -> str:
        """The ends of the key, to tell one account from another: ``PK…3F``."""
        return f"{self.key[:2]}…{self.key[-2:]}" if len(self.key) >= _SHORTEST_MASKED else "…"

    def data_stream(self, feed: str) -> str | None:
        """Address of the market data socket of a feed, such as ``ws://host:port/v2/iex``; None for the SDK's own."""
        return None if self.data_url is None else f"ws{self.data_url.removeprefix('http')}/v2/{feed}"


def load_credentials(environment: Mapping[str, str] | None = None, *, folder: Path) -> Credentials:
    """The keys and the endpoint, each from the environment, or else from ``folder/.env``; nothing is written to either.

    Args:
        environment: the process's, if None.
        folder: where a ``.env`` file may lie.

    Raises:
        BrokerError: no keys, or such as cannot be keys; an endpoint that is neither Alpaca's paper trading nor this
            machine. Names the variables, never their values.
    """
    values = {**read_dotenv(folder), **(os.environ if environment is None else environment)}
    key, secret = values.get(KEY, "").strip(), values.get(SECRET, "").strip()
    if not key or not secret:
        missing = " and ".join(name for name, value in ((KEY, key), (SECRET, secret)) if not value)
        raise BrokerError(
            f"{missing}: missing; set {KEY} and {SECRET} in the environment or in a {DOTENV} file, to the key of a "
            "paper account (on Alpaca's page, switch to Paper Trading and generate an API key); without keys, "
            "nextbar paper --replay trades data of other sources than alpaca"
        )
    for name, value in ((KEY, key), (SECRET, secret)):
        if not (value.isascii() and value.isprintable()) or " " in value:
            raise BrokerError(
                f"{name}: expected letters and digits, found a space, a line break or another character that no key "
                "has; copy it again, without what stands around it"
            )
    exchange = _exchange(values.get(ENDPOINT, ""))
    return Credentials(
        key=key,
        secret=secret,
        trading_url=exchange and f"http://{exchange}",
        data_url=exchange and f"http://{exchange}",
        trading_stream_url=exchange and f"ws://{exchange}/stream",
    )


def find_credentials(folder: Path, environment: Mapping[str, str] | None = None) -> Credentials:
    """As ``load_credentials``, with the ``.env`` of the working folder, or else that of the run file's ``folder``."""
    named = (place for place in (Path(), folder) if {KEY, SECRET, ENDPOINT} & read_dotenv(place).keys())
    return load_credentials(environment, folder=next(named, folder))


def read_dotenv(folder: Path) -> dict[str, str]:
    path = folder / DOTENV
    try:
        # Taken literally: a $ in a secret is a $. Windows' editors put a mark before the first line (-sig).
        values = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BrokerError(
            f"{path}: could not be read ({type(error).__name__}); expected lines such as {KEY}=..., in UTF-8"
        ) from None
    return {name: value or "" for name, value in values.items()}


def _exchange(endpoint: str) -> str | None:
    """``host:port`` of an exchange on this machine; None for Alpaca's paper trading.

    Raises:
        BrokerError: any other endpoint, above all that of live trading.
    """
    endpoint = endpoint.strip()
    if not endpoint:
        return None
    found = "what is no address"
    try:
        parts = urlsplit(endpoint)
        host, port = parts.hostname or "", parts.port
        found = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
        # Only a scheme, a host, a port and a path: no user, query or fragment, and none of what urlsplit skips.
        if not parts.scheme or not host:
            found = "what does not begin with http:// or https://"
        elif "@" in endpoint:
            found = "a user name in it"
        plain = endpoint.isprintable() and "@" not in endpoint and not parts.query and not parts.fragment
        if plain and parts.path in _PATHS:
            if (parts.scheme, host) == ("https", _PAPER) and port in (None, 443):
                return None
            if parts.scheme == "http" and host in _LOOPBACK and port:
                return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    except ValueError:
        pass
    raise BrokerError(
        f"{ENDPOINT}: nextbar trades on paper only; expected https://{_PAPER}, or http://127.0.0.1:PORT for an "
        f"exchange on this machine, found {found}; unset it, or correct it"
    )

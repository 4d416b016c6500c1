"""What the exchange answers when it turns a request down, in Alpaca's words and codes."""

from __future__ import annotations

from typing import Any

from engine.errors import BrokerError

FORBIDDEN = 40310000
NOT_FOUND = 40410000
DUPLICATE = 40010001
INVALID = 42210000


class Refusal(BrokerError):
    """A request that the exchange turns down; it changed nothing.

    Attributes:
        status: of the HTTP answer.
        body: Alpaca's ``{"code": ..., "message": ...}``, and for some refusals more.
    """

    def __init__(self, status: int, code: int | None, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"message": message, **more} if code is None else {"code": code, "message": message}
        self.body.update(more)


def unauthorized() -> Refusal:
    """No keys, or wrong ones; Alpaca's body has no code."""
    return Refusal(401, None, "unauthorized.")


def invalid(message: str) -> Refusal:
    """The request says something that cannot be, or that this exchange does not do."""
    return Refusal(422, INVALID, message)


def not_found(message: str) -> Refusal:
    """There is no such thing."""
    return Refusal(404, NOT_FOUND, message)


def forbidden(message: str, **more: Any) -> Refusal:
    """The account may not do this."""
    return Refusal(403, FORBIDDEN, message, **more)


def duplicate() -> Refusal:
    """A client order id was used before, by whatever became of that order."""
    return Refusal(422, DUPLICATE, "client_order_id must be unique")

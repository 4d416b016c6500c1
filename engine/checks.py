"""One check of ``nextbar doctor``: what was expected, what was found, and how the two compare."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from engine.errors import NextbarError

State = Literal["ok", "differs", "skipped", "failed"]

_MOST_CHARACTERS = 300


class Differs(Exception):
    """What was found is not what was expected; the message says what it is."""


class Skipped(Exception):
    """The check says nothing here; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """The outcome of a check; ``found`` holds the reason where it was skipped or failed."""

    name: str
    area: str
    expected: str
    found: str
    state: State

    @property
    def is_bad(self) -> bool:
        """Whether a person should look at it."""
        return self.state in ("differs", "failed")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A check that is not made yet.

    Attributes:
        ask: what was found, in words. It raises ``Differs`` or ``Skipped``; any other error is a failure.
    """

    name: str
    area: str
    expected: str
    ask: Callable[[], str]

    def answered(self, *, seconds: float, secrets: Sequence[str] = ()) -> Check:
        """Make the check, on a thread of its own: one that hangs is left behind after so many seconds.

        Args:
            secrets: never shown, whatever an answer or an error repeats.
        """
        outcome: list[tuple[str, State]] = []
        thread = threading.Thread(target=lambda: outcome.append(self._outcome()), name="nextbar-check", daemon=True)
        thread.start()
        thread.join(seconds)
        found, state = outcome[0] if outcome else (f"no answer within {seconds:.3g} seconds", "failed")
        return self._check(shown(found, secrets), state)

    def skipped(self, why: str) -> Check:
        """The check, not made."""
        return self._check(why, "skipped")

    def _check(self, found: str, state: State) -> Check:
        return Check(name=self.name, area=self.area, expected=self.expected, found=found, state=state)

    def _outcome(self) -> tuple[str, State]:
        try:
            return self.ask(), "ok"
        except Differs as error:
            return str(error), "differs"
        except Skipped as error:
            return str(error), "skipped"
        except NextbarError as error:
            return str(error), "failed"
        except OSError as error:
            return f"{type(error).__name__}: {error.strerror or error}", "failed"
        except Exception as error:
            return f"what came cannot be read ({type(error).__name__}: {error})", "failed"


def shown(text: str, secrets: Sequence[str] = ()) -> str:
    """The text on one line, cut, without control characters and without any of the secrets in their usual spellings."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        encoded = base64.b64encode(secret.encode()).decode()
        for spelling in (secret, quote(secret, safe=""), encoded, encoded.rstrip("=")):
            text = text.replace(spelling, "…")
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= _MOST_CHARACTERS else f"{line[: _MOST_CHARACTERS - 1]}…"

"""Requests to the broker: each comes to an end, none holds up a stop, and what went wrong is said in one sentence."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import requests
from alpaca.common.exceptions import APIError

from engine.data.alpaca import with_timeouts
from engine.errors import BrokerError

if TYPE_CHECKING:
    from typing import TypeVar

    from alpaca.common.rest import RESTClient

    Client = TypeVar("Client", bound=RESTClient)

NOT_FOUND, UNAUTHORIZED, FORBIDDEN, TOO_MANY = 404, 401, 403, 429

# The client's own time-outs count from byte to byte and leave out the search for the address; this one counts all.
_SECONDS = 11.0
# What is left to a request when the run is to end: an order's answer is worth more than another picture.
_SECONDS_AFTER_STOP = {"GET": 0.5, "POST": 1.5, "DELETE": 1.5}
_SLICE_SECONDS = 0.2


class NoAnswer(BrokerError):
    """Nothing came that says anything: the same may be asked again later."""


class Unanswered(requests.Timeout):
    """No answer in time, or none before the run was stopped. Whether the request took effect is not known."""


class AccountLock:
    """Held by one run on this machine for each account: two would take each other's orders for their own."""

    def __init__(self, account: str, shown: str, *, folder: Path | None = None) -> None:
        """``account``: endpoint and key; only a hash of it is written. ``shown``: the key as it may be shown."""
        name = hashlib.sha256(account.encode()).hexdigest()[:24]
        self._path = (folder or Path(tempfile.gettempdir())) / f"nextbar-{name}.lock"
        self._shown = shown
        self._file: int | None = None

    def take(self) -> None:
        """Take it.

        Raises:
            BrokerError: another run has it, or it cannot be made.
        """
        while self._file is None:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise BrokerError(
                    f"the lock of account {self._shown}, {self._path}, cannot be made ({error.strerror}); another "
                    "user's run may have it: stop that, or use another paper account"
                ) from error
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever had it may have removed the file in between: it must be the one that others find.
                is_there = os.fstat(file).st_ino == self._path.stat().st_ino
            except BlockingIOError as error:
                os.close(file)
                raise BrokerError(
                    f"another run on this machine trades with account {self._shown} already; stop it, or use another "
                    "paper account"
                ) from error
            except FileNotFoundError:
                is_there = False
            if is_there:
                self._file = file
            else:
                os.close(file)

    def release(self) -> None:
        """Let go of it, if it is held."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


class Line:
    """Carries a client's requests on a thread of its own, so that the thread which waits for the answer can leave.

    A request that hangs keeps its thread until it ends; the next request gets a new one.
    """

    def __init__(self, stopped: Callable[[], bool] = lambda: False, *, seconds: float = _SECONDS) -> None:
        """``stopped``: whether the run is to end. ``seconds``: how long an answer is waited for."""
        self._stopped = stopped
        self._seconds = seconds
        self._jobs: SimpleQueue[_Job | None] | None = None
        self._thread: threading.Thread | None = None

    def carry(self, client: Client) -> Client:
        """The same client, whose requests go this way; it repeats none by itself, least of all an order."""
        session = with_timeouts(client)._session
        session.request = partial(self._request, session.request)  # type: ignore[method-assign]
        client._retry_codes = []
        return client

    def _request(self, send: Callable[..., Any], method: str, *args: Any, **kwargs: Any) -> Any:
        job = _Job(partial(send, method, *args, **kwargs))
        if self._jobs is None:
            self._jobs = SimpleQueue()
            self._thread = threading.Thread(target=_work, args=(self._jobs,), name="nextbar-rest", daemon=True)
            self._thread.start()
        self._jobs.put(job)
        deadline, leaves = time.monotonic() + self._seconds, False
        while not job.done.wait(max(0.0, min(_SLICE_SECONDS, deadline - time.monotonic()))):
            now = time.monotonic()
            if not leaves and self._stopped():
                leaves, deadline = True, min(deadline, now + _SECONDS_AFTER_STOP.get(method, 0.5))
            if now >= deadline:
                self._jobs.put(None)
                self._jobs = self._thread = None
                raise Unanswered("stopped before an answer came" if leaves else f"no answer in {self._seconds:g} s")
        if job.error is not None:
            raise job.error
        return job.answer

    def close(self) -> None:
        """End the thread."""
        if self._jobs is not None and self._thread is not None:
            self._jobs.put(None)
            self._thread.join(1.0)
        self._jobs = self._thread = None


class _Job:
    """A request, and what came of it."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.done = threading.Event()
        self.answer: Any = None
        self.error: BaseException | None = None


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        try:
            job.answer = job.call()
        except BaseException as error:  # it is raised where the answer is waited for
            job.error = error
        job.done.set()
        del job


def answered(
    what: str,
    call: Callable[[], Any],
    *,
    refusal: Callable[[str, int, str], BrokerError],
    rest: Callable[[int], bool],
    missing: Any = None,
    insists: bool = False,
) -> Any:
    """The answer to a harmless question.

    Args:
        insists: ask once more also where the broker has failed.
        refusal: the error for a question that was refused with a status and a message.
        rest: waits after the first, second ... try of a question that came on top of too many; whether to try again.
        missing: the answer where the broker knows no such thing; None: that is a refusal.

    Raises:
        NoAnswer: the broker was not reached, failed, or answered with what cannot be read.
        BrokerError: ``refusal``.
    """
    tries = 0
    while True:
        tries += 1
        try:
            return call()
        except APIError as error:
            status, message, _ = explained(error)
            if (status == TOO_MANY or (insists and status >= 500 and tries == 1)) and rest(tries):
                continue
            if status == NOT_FOUND and missing is not None:
                return missing
            raise refusal(what, status, message) from error
        except requests.JSONDecodeError as error:
            raise NoAnswer(f"the broker answered for {what} with what is no JSON; try again later") from error
        except requests.RequestException as error:
            raise NoAnswer(
                f"the broker could not be reached for {what} ({type(error).__name__}); check the network"
            ) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise NoAnswer(
                f"the broker answered for {what} with what cannot be read ({type(error).__name__}); try again later"
            ) from error


def explained(error: APIError) -> tuple[int, str, int]:
    """Status, message and code of the SDK's error, whose own properties fail on some bodies."""
    status = error.status_code or 0
    try:
        body = json.loads(str(error))
    except ValueError:
        return status, " ".join(str(error).split())[:200] or f"status {status}", 0
    if not isinstance(body, dict):
        return status, f"status {status}", 0
    code = body.get("code")
    return status, str(body.get("message", f"status {status}"))[:200], code if isinstance(code, int) else 0

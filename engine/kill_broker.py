"""The way to the broker of a run that nobody trades any more, by REST alone: no strategy, model or stream is needed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.credentials import Credentials, find_credentials
from engine.errors import BrokerError, StorageError
from engine.exchange.account import PRACTICE, AccountSpec
from engine.exchange.server import ExchangeServer
from engine.live.account_rest import AccountRest, Persistence, account_rest
from engine.live.control import Control
from engine.live.rest import AccountLock
from engine.run_file import load_config
from engine.serving import bars_to_replay

STATE = "exchange.sqlite"
"""The file in a replay's folder in which its exchange keeps its state, as ``engine.paper_stage`` names it."""
_STATE_SECONDS, _AGAIN_SECONDS = 10.0, 0.1


@dataclass(frozen=True, kw_only=True)
class Reached:
    """A run's broker.

    Attributes:
        advance: moves the clock of an exchange on that does not move by itself, by a step; False at its end.
        over: that clock is at its end already.
    """

    rest: AccountRest
    advance: Callable[[], bool] | None = None
    over: bool = False


@contextmanager
def reached(folder: Path, manifest: Mapping[str, Any], persistence: Persistence) -> Iterator[Reached | None]:
    """The broker of a run; None for a replay that had not begun: it has no exchange yet.

    Raises:
        BrokerError: it cannot be reached, refuses the keys, or they are another account's.
        NextbarError: the exchange of a replay cannot be brought back.
    """
    if manifest.get("mode") == "replay":
        if not (folder / STATE).is_file():
            yield None
            return
        with _replayed(folder) as credentials, _account(credentials, persistence, moves=True) as found:
            yield found
        return
    # Where the run file lay, a .env file may lie too.
    credentials = find_credentials(Path(manifest.get("folder") or folder))
    with _account(credentials, persistence, moves=False) as found:
        account = str(found.rest.account().get("account_number", ""))
        if manifest.get("account") not in (None, "", account):
            raise BrokerError(
                f"the keys are those of account {account}, and the run trades with account {manifest['account']}; "
                "nothing was sent: set APCA_API_KEY_ID, APCA_API_SECRET_KEY and APCA_API_BASE_URL as for the run"
            )
        yield found


@contextmanager
def _account(credentials: Credentials, persistence: Persistence, *, moves: bool) -> Iterator[Reached]:
    """The account behind the keys; ``moves``: nobody else moves its clock."""
    lock = AccountLock(f"{credentials.trading_url or ''} {credentials.key}", credentials.masked)
    with account_rest(credentials, persistence) as rest:
        control = Control(credentials) if credentials.local else None
        try:
            if control is None:
                yield Reached(rest=rest)
                return
            rest.account()  # whether it is there, asked as patiently as everything else
            status = control.status()
            with suppress(BrokerError):
                # Another run that trades with this account moves it, and would miss the steps that we take.
                lock.take()
                moves = True
            if status["mode"] != "lock-step" or not moves:
                yield Reached(rest=rest)
            else:
                yield Reached(rest=rest, advance=_Steps(control, int(status["time"])), over=bool(status.get("done")))
        finally:
            lock.release()
            if control is not None:
                control.close()


class _Steps:
    """Moves a lock-step exchange on."""

    def __init__(self, control: Control, now: int) -> None:
        self._control, self._now = control, now

    def __call__(self) -> bool:
        """One step; False at the end."""
        step = self._control.advance(self._now)
        self._now = self._now if step.time is None else step.time
        return step.time is not None


@contextmanager
def _replayed(folder: Path) -> Iterator[Credentials]:
    """The exchange of a replay, brought back from its state; the keys to it."""
    config = load_config(folder / "config.yaml")
    bars, start = bars_to_replay(config)
    account = AccountSpec(key=PRACTICE[0], secret=secrets.token_urlsafe(24), broker=config.broker)
    deadline = time.monotonic() + _STATE_SECONDS
    while True:
        exchange = ExchangeServer(bars=bars, start=start, accounts=[account], state=folder / STATE)
        try:
            exchange.start()
            break
        except StorageError as error:
            # A process that has just halted holds it until it has written its report.
            if "holds this state" not in str(error) or time.monotonic() >= deadline:
                raise
            time.sleep(_AGAIN_SECONDS)
    try:
        yield Credentials(key=account.key, secret=account.secret, trading_url=exchange.url, data_url=exchange.url)
    finally:
        exchange.stop()

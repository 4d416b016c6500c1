"""The use case behind ``nextbar doctor``: is this machine fit, and does the broker do what the live side relies on.

Nothing is changed: only GET requests are sent, and sockets are opened, subscribed to and closed. No check waits without
an end, and all of them together take a minute at most. An exchange on this machine that keeps its own clock begins to
walk with the first question, as it does for anybody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.checks import Check, Question, Skipped
from engine.config import ALL, RunConfig
from engine.credentials import DOTENV, ENDPOINT, KEY, SECRET, Credentials, find_credentials, read_dotenv
from engine.data.alpaca import DEFAULT_FEED
from engine.errors import BrokerError, ConfigError, NextbarError
from engine.machine import machine_questions
from engine.notices import NOTIFY, apprise_sender, notify_urls
from engine.run_file import load_config

if TYPE_CHECKING:
    from engine.live.answers import Questioner, Subject

_SECONDS_IN_ALL = 60.0
_SECONDS_A_CHECK = 12.0
_SECONDS_OF_IMPORTS = 30.0
# Asked about where no run file says what is traded.
_USUAL_SYMBOL, _USUAL_TIMEFRAME = "AAPL", "1m"
# A key that is shorter is no key of Alpaca's, and to hide it would hide words.
_SHORTEST_KEY = 12
_RUN_FILE, _KEYS = "run file", "keys"
_BROKER = (_KEYS, "broker", "market", "sockets")


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All checks, in the order in which they were made."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing differs and nothing failed."""
        return not any(check.is_bad for check in self.checks)

    @property
    def exit_code(self) -> int:
        """0; or that of the most telling area in which something is bad: the broker, the run file, the machine."""
        bad = {check.area for check in self.checks if check.is_bad}
        if bad & {*_BROKER}:
            return BrokerError.exit_code
        return ConfigError.exit_code if _RUN_FILE in bad else NextbarError.exit_code if bad else 0


def doctor(
    run_file: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    root: Path = Path(),
    now: Callable[[], float] = time.time,
    environment: Mapping[str, str] | None = None,
    on_check: Callable[[Check], None] = lambda check: None,
) -> Diagnosis:
    """Make every check that can be made here.

    Args:
        run_file: checked too; its symbols, timeframe and feed are what the broker is asked about.
        overrides: of the run file.
        root: the folder with runs/ and bundles/.
        now: this machine's clock, Unix seconds.
        environment: the process's, if None.
        on_check: takes each check as it is made.
    """
    examination = _Examination(on_check)
    environment = os.environ if environment is None else environment
    examination.make(machine_questions(root))
    config = _run_file(examination, run_file, overrides, root)
    folder = Path() if run_file is None else run_file.parent
    examination.make([_notifications(folder, environment)])
    credentials = _credentials(examination, folder, environment)
    if credentials is not None:
        _broker(examination, credentials, config, now)
    return Diagnosis(checks=tuple(examination.checks))


class _Examination:
    """Makes the checks one after another, within the time that is left to all of them."""

    def __init__(self, on_check: Callable[[Check], None]) -> None:
        self.checks: list[Check] = []
        self.secrets: tuple[str, ...] = ()
        self._on_check = on_check
        self._end = time.monotonic() + _SECONDS_IN_ALL

    def make(
        self, questions: Iterable[Question], unless: Callable[[], str] = lambda: "", *, most: float = _SECONDS_A_CHECK
    ) -> None:
        """Make these checks, in ``most`` seconds each; one for which ``unless`` gives a reason is skipped."""
        for question in questions:
            left = self._end - time.monotonic()
            why = unless() or ("" if left > 0.0 else f"the {_SECONDS_IN_ALL:g} seconds of all checks are over")
            seconds = min(most, left)
            self._keep(question.skipped(why) if why else question.answered(seconds=seconds, secrets=self.secrets))

    def _keep(self, check: Check) -> None:
        self.checks.append(check)
        self._on_check(check)


# --- the run file --------------------------------------------------------------------------------------------------


def _run_file(
    examination: _Examination, run_file: Path | None, overrides: Sequence[str], root: Path
) -> RunConfig | None:
    if run_file is None:
        return None
    found: list[RunConfig] = []

    def resolves() -> str:
        config = load_config(run_file, overrides)
        found.append(config)
        return f"{run_file}: {', '.join(config.data.symbols)} in {config.data.timeframe}"

    examination.make([Question(name="run file", area=_RUN_FILE, expected="resolves", ask=resolves)])
    if not found:
        return None
    bundle = Question(name="bundle", area=_RUN_FILE, expected="there", ask=lambda: _bundle(found[0], root))
    examination.make([bundle], most=_SECONDS_OF_IMPORTS)
    return found[0]


def _bundle(config: RunConfig, root: Path) -> str:
    if config.model is None:
        raise Skipped("the run file has no model")
    from models.bundle import find_bundle

    return str(find_bundle(config, root / "bundles"))


# --- what stands in the environment --------------------------------------------------------------------------------


def _notifications(folder: Path, environment: Mapping[str, str]) -> Question:
    def ask() -> str:
        urls = notify_urls(folder, environment)
        if not urls:
            raise Skipped(f"{NOTIFY} is not set: nobody is notified")
        apprise_sender(urls)
        return f"{len(urls)} that apprise knows; nothing was sent"

    return Question(name="notifications", area="notifications", expected="URLs of apprise's services", ask=ask)


def _credentials(examination: _Examination, folder: Path, environment: Mapping[str, str]) -> Credentials | None:
    found: list[Credentials] = []

    def ask() -> str:
        places = _places(folder, environment)
        if not {KEY, SECRET} & {name for names in places.values() for name in names}:
            raise Skipped(
                f"there are none, so the broker was not asked: set {KEY} and {SECRET} in the environment or in a "
                f"{DOTENV} file"
            )
        credentials = find_credentials(folder, environment)
        found.append(credentials)
        origins = "; ".join(f"{', '.join(names)} from {place}" for place, names in places.items())
        return f"key {credentials.masked}: {origins}"

    examination.make([Question(name="keys", area=_KEYS, expected=f"{KEY} and {SECRET}", ask=ask)])
    if not found:
        return None
    key, secret = found[0].key, found[0].secret
    examination.secrets = (secret, key) if len(key) >= _SHORTEST_KEY else (secret,)
    return found[0]


def _places(folder: Path, environment: Mapping[str, str]) -> dict[str, list[str]]:
    """What is set, by where it is from: the environment, or else the one file that ``find_credentials`` reads."""
    names = (KEY, SECRET, ENDPOINT)
    files = [(place, read_dotenv(place)) for place in (Path(), folder)]
    place, values = next((file for file in files if {*names} & file[1].keys()), files[1])
    in_file = [name for name in names if values.get(name) and name not in environment]
    found = {"the environment": [name for name in names if environment.get(name)], str(place / DOTENV): in_file}
    return {origin: named for origin, named in found.items() if named}


# --- the broker ----------------------------------------------------------------------------------------------------


def _broker(
    examination: _Examination, credentials: Credentials, config: RunConfig | None, now: Callable[[], float]
) -> None:
    from engine.live.answers import Questioner
    from engine.live.probes import account_question, broker_questions
    from engine.live.socket_probes import Sockets

    broker = Questioner(credentials, now)
    try:
        examination.make([account_question(broker)])
        why = "" if broker.accepted else f"the broker {'does not accept us' if broker.reached else 'was not reached'}"
        subject = _subject(examination, broker, config)
        examination.make(broker_questions(broker, subject), lambda: why)
        if why:
            examination.make(Sockets(credentials, subject).questions(), lambda: why)
            return
        with Sockets(credentials, subject) as sockets:
            examination.make(sockets.questions(), lambda: sockets.busy)
    finally:
        broker.close()


def _usual(config: RunConfig | None) -> Subject:
    from engine.live.answers import Subject

    if config is None:
        return Subject(symbols=(_USUAL_SYMBOL,), timeframe=_USUAL_TIMEFRAME, feed=DEFAULT_FEED)
    data = config.data
    symbols = (_USUAL_SYMBOL,) if data.symbols == (ALL,) else tuple(sorted(data.symbols))
    return Subject(symbols=symbols, timeframe=data.timeframe, feed=data.feed or DEFAULT_FEED)


def _subject(examination: _Examination, broker: Questioner, config: RunConfig | None) -> Subject:
    """What to ask about; of an exchange on this machine, without its run file, what it says that it has."""
    from engine.live.answers import Subject
    from engine.live.market_probes import AREA, what_is_replayed

    found = [_usual(config)]

    def ask() -> str:
        symbol, timeframe = what_is_replayed(broker)
        found.append(Subject(symbols=(symbol,), timeframe=timeframe, feed=DEFAULT_FEED))
        return f"{symbol} in {timeframe}; name the exchange's run file to ask about all"

    if config is None and broker.credentials.local and broker.accepted:
        examination.make([Question(name="what is replayed", area=AREA, expected="a symbol and its bars", ask=ask)])
    return found[-1]

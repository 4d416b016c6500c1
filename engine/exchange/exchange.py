"""The exchange itself, without a network: a clock of bars, the accounts, and who listens to them.

All of it runs in one thread, a request at a time, and each action is in the log before anybody hears of it.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack

from engine.data.calendars import session_number
from engine.errors import ConfigError, NextbarError, StorageError
from engine.exchange.account import Account, AccountSpec
from engine.exchange.clients import Client
from engine.exchange.faults import ArmedFaults, Fault, Faults
from engine.exchange.flawed_bars import FlawedBars
from engine.exchange.listed import Listed
from engine.exchange.market import Market, Step
from engine.exchange.refusals import invalid
from engine.exchange.state import Action, ActionLog
from engine.exchange.tickets import read_ticket, read_transfer
from engine.exchange.wire import number
from engine.sections import digest, dump
from engine.trading.venue import Bar

SCHEMA = 1

STEPS_OF_A_JUMP = 5


class Exchange:
    """A market, its accounts, and the present moment.

    An order given between two steps is decided at the last one's time and can fill in the next: in the bar that ends
    at T, whenever before T's matching it was sent. ``now`` is the time of the last step, in every mode.

    Attributes:
        now: UTC nanoseconds.
        position: number of steps gone.
        prices: last close of every symbol that has one.
        last_day_prices: the same at the end of the last session.
        last_start: smallest start of the bars of the last step, UTC ns; None before any.
        faults: those it makes, or None. flaws: what they do to the bars that are shown.
        interrupted: whether a fault has ended it; it is to be restored from its log, and answers nobody until then.
    """

    def __init__(
        self,
        market: Market,
        accounts: Sequence[AccountSpec],
        *,
        faults: Faults | None = None,
        spent: list[Fault] | None = None,
    ) -> None:
        """Make the exchange as it is before its first step.

        Args:
            faults: a schedule to make, drawn for this market.
            spent: takes the faults that strike, in their order.
        """
        keys = [spec.key for spec in accounts]
        if not keys or len(set(keys)) != len(keys) or not all(spec.key and spec.secret for spec in accounts):
            raise ConfigError("an exchange needs at least one account, and each a key of its own and a secret")
        self.market = market
        self.now = market.opening
        self.position = 0
        self.prices = dict(market.opening_prices)
        self.last_day_prices: Mapping[str, float] = dict(self.prices)
        self.faults = None if faults is None else ArmedFaults(faults, [] if spent is None else spent)
        self.flaws = None if self.faults is None else FlawedBars(market, self.faults)
        self.interrupted = False
        self._changing = "" if faults is None else faults.changing
        self.clients = [Client(Account(spec, self.prices, self.faults), self.faults) for spec in accounts]
        self._keys = [(spec.key.encode(), spec.secret.encode(), client) for spec, client in self._specs()]
        self._numbers = {client.account.id: number for number, client in enumerate(self.clients)}
        self.last_start: int | None = None
        self._log: ActionLog | None = None
        self._untouched = True
        self._shown: Step | None = None
        self._packer = msgpack.Packer()

    def _specs(self) -> list[tuple[AccountSpec, Client]]:
        return [(client.account.spec, client) for client in self.clients]

    def authenticate(self, key: bytes, secret: bytes) -> Client | None:
        """The account of a key and its secret, compared in constant time; None when they fit no account."""
        found = None
        for known_key, known_secret, client in self._keys:
            fits_key, fits_secret = hmac.compare_digest(known_key, key), hmac.compare_digest(known_secret, secret)
            if fits_key and fits_secret:
                found = client
        return found

    # --- the log ---------------------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """What an action log belongs to: these bars from this start, these accounts, this version of the actions.

        And the faults that change what an account holds, where there are any.
        """
        accounts = [[spec.key, dump(spec.broker)] for spec, _ in self._specs()]
        changing = [self._changing] if self._changing else []
        return digest(SCHEMA, self.market.content_hash, self.market.time(0), accounts, *changing)

    def restore(self, log: ActionLog) -> None:
        """Repeat the actions of the log, then go on writing it.

        Raises:
            StorageError: an action cannot be repeated.
        """
        if self.faults is not None:
            self.faults.repeating = True
        for action in log.actions():
            try:
                self._repeat(action)
            except (NextbarError, LookupError, TypeError) as error:
                raise StorageError(
                    f"{log.path}: action {action.number} of the exchange's state cannot be repeated ({error}); the "
                    "file is damaged: remove it to start afresh"
                ) from error
        if self.faults is not None:
            self.faults.end_repeating()
        self._log = log

    def keep(self, log: ActionLog) -> None:
        """Write every action to this log from now on.

        Raises:
            ConfigError: something has happened already, or another log is kept.
            StorageError: the log is not empty.
        """
        if self._log is not None or not self._untouched:
            raise ConfigError(
                "the exchange has begun already, so a state kept from now on would miss its beginning; "
                "name its state before the first order and the first step"
            )
        if not log.empty:
            raise StorageError(
                f"{log.path}: this state has actions already, and the exchange begins afresh; name a new file"
            )
        self._log = log

    def _repeat(self, action: Action) -> None:
        if action.kind == "advance":
            for left in reversed(range(action.times)):
                if left == 0:
                    for client in self.clients:
                        client.begin_repeated_step()
                self._match()
            for client in self.clients:
                client.end_repeated_step()
            return
        account = self.clients[action.account].account
        if action.kind == "submit":
            self.submit(account, action.detail)
        elif action.kind == "cancel":
            self.cancel(account, account.find(action.detail["id"]))
        elif action.kind == "replace":
            self.replace(account, account.find(action.detail["id"]), action.detail["changes"])
        elif action.kind == "close":
            self.close(account, **action.detail)
        elif action.kind == "transfer":
            self.transfer(account, action.detail)
        else:
            raise StorageError(f"an unknown kind of action, {action.kind}")

    def _record(self, kind: str, account: Account, detail: Any) -> None:
        self._untouched = False
        if self._log is not None:
            self._log.record(kind, self._numbers[account.id], detail)

    def _check_log(self) -> None:
        if self._log is not None and self._log.failure:
            raise StorageError(self._log.failure)

    # --- what clients do -------------------------------------------------------------------------------------------

    def submit(self, account: Account, body: Any) -> Listed:
        """Take an order as it came in a POST."""
        self._check_log()
        ticket = read_ticket(body, fractional=account.spec.broker.fractional)
        if ticket.symbol not in self.market.series:
            raise invalid(f"asset {ticket.symbol!r} not found")
        listed = account.submit(ticket, self.now)
        self._record("submit", account, body)
        return listed

    def cancel(self, account: Account, listed: Listed) -> None:
        """Cancel one order."""
        self._check_log()
        account.cancel(listed, self.now)
        self._record("cancel", account, {"id": listed.id})

    def replace(self, account: Account, listed: Listed, changes: Any) -> Listed:
        """Replace one order, by the body of a PATCH."""
        self._check_log()
        if not isinstance(changes, dict):
            raise invalid("the changes must be a JSON object")
        if changes.get("trail") is not None:
            raise invalid("trailing_stop orders are not supported here")
        made = account.replace(listed, changes, self.now)
        self._record("replace", account, {"id": listed.id, "changes": changes})
        return made

    def close(
        self, account: Account, symbol: str, quantity: str | None = None, percentage: str | None = None
    ) -> Listed:
        """Close a position, or a part of it, by a market order."""
        self._check_log()
        made = account.close(symbol, self.now, quantity=quantity, percentage=percentage)
        detail = {"symbol": symbol, "quantity": quantity, "percentage": percentage}
        self._record("close", account, detail)
        return made

    def transfer(self, account: Account, body: Any) -> dict[str, str]:
        """Book shares into or out of an account from outside; symbol, quantity held and cash after it."""
        self._check_log()
        moved = read_transfer(body)
        if moved.symbol not in self.prices:
            known = moved.symbol in self.market.series
            raise invalid(f"{moved.symbol} has no price yet" if known else f"asset {moved.symbol!r} not found")
        held = account.transfer(moved, self.now)
        self._record("transfer", account, body)
        return {"symbol": moved.symbol, "qty": number(held), "cash": number(account.venue.ledger.cash)}

    # --- the clock -------------------------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether all bars have been given out."""
        return self.position == len(self.market)

    def advance(self) -> bool:
        """Move to the next step: match, tell of trade updates, show the bars. False when there is none."""
        if self.done:
            return False
        self.match()
        if not self.interrupted:
            self.show()
        return True

    def match(self) -> None:
        """The first half of a step: the clock moves, orders meet the new bars, accounts hear of what became of them."""
        self._check_log()
        for client in self.clients:
            client.begin_step()
        if self.faults is None:
            self._take_step()
        else:
            self._take_step_with(self.faults)

    def _take_step(self) -> None:
        self._match()
        if self._log is not None:
            self._log.advance()

    def _take_step_with(self, faults: ArmedFaults) -> None:
        faults.arm(self.position + 1)
        for client in self.clients:
            client.begin_matching()
        steps = STEPS_OF_A_JUMP if faults.take("clock-jump") else 1
        for _ in range(min(steps, len(self.market) - self.position)):
            self._take_step()
        for client in self.clients:
            client.end_matching()
        # Without a state it could only come back as another exchange, so the fault waits for one.
        self.interrupted = self._log is not None and bool(faults.take("restart"))

    def _match(self) -> None:
        step = self.market.step(self.position)
        if step.session != session_number(self.now):
            self._end_session()
        bars = {symbol: Bar(*row[:4]) for symbol, row in zip(step.symbols, step.rows, strict=True)}
        self.prices.update((symbol, bar.close) for symbol, bar in bars.items())
        self.now = step.time
        self.position += 1
        self.last_start = min(step.starts)
        self._untouched = False
        self._shown = step
        if self.faults is not None and self.flaws is not None:
            self.faults.arm(self.position)
            self.flaws.take(step)
        for client in self.clients:
            account = client.account
            venue = account.venue
            # As the backtest does: nothing to charge and nothing to match is no step of the venue.
            if venue.open_orders or venue.ledger.borrows:
                events = venue.on_bars(time=step.time, session=step.session, session_ends=step.session_ends, bars=bars)
                account.report(events, step.time)

    def _end_session(self) -> None:
        self.last_day_prices = dict(self.prices)
        for client in self.clients:
            account = client.account
            account.days.append((self.now, account.venue.ledger.equity(self.prices)))

    def show(self) -> None:
        """The second half of a step: push its bars. Alpaca streams bars of a minute and of a day."""
        step, self._shown = self._shown, None
        if step is not None and self.market.timeframe in ("1m", "1d"):
            self._push_bars(step)
        for client in self.clients:
            client.end_step()

    def _push_bars(self, step: Step) -> None:
        channel, kind = ("bars", "b") if self.market.timeframe == "1m" else ("dailyBars", "d")
        unshown = () if self.flaws is None else self.flaws.unshown
        messages: list[bytes] | None = None
        for client in self.clients:
            outlet = client.data
            if outlet is None or not outlet.symbols[channel]:
                continue
            messages = messages or self._messages(step, kind)
            for symbol, message in zip(step.symbols, messages, strict=True):
                if outlet.wants(channel, symbol) and symbol not in unshown:
                    client.show(outlet, message, counted=kind == "b")
        if self.flaws is not None and self.flaws.revised:
            self._push_revisions(step, self.flaws.revised)

    def _push_revisions(self, step: Step, revised: Mapping[str, list[float]]) -> None:
        starts = [step.starts[step.symbols.index(symbol)] for symbol in revised]
        changed = step._replace(symbols=list(revised), starts=starts, rows=list(revised.values()))
        for symbol, message in zip(revised, self._messages(changed, "u"), strict=True):
            for client in self.clients:
                if client.data is not None and client.data.wants("updatedBars", symbol):
                    client.data.push(message)

    def _messages(self, step: Step, kind: str) -> list[bytes]:
        pack = self._packer.pack
        return [
            pack(
                {"T": kind, "S": symbol, "o": open_, "h": high, "l": low, "c": close, "v": volume, "n": 1, "vw": close,
                 "t": msgpack.Timestamp.from_unix_nano(start)}
            )
            for symbol, start, (open_, high, low, close, volume) in zip(
                step.symbols, step.starts, step.rows, strict=True
            )
        ]  # fmt: skip

"""The exchange on a loopback port, in a thread of its own or in the foreground."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
import uvicorn

from engine.data.bars import Bars
from engine.errors import BrokerError, ConfigError
from engine.exchange.account import AccountSpec
from engine.exchange.application import Application
from engine.exchange.exchange import Exchange
from engine.exchange.faults import Fault, Faults
from engine.exchange.loopback import is_loopback
from engine.exchange.market import Market
from engine.exchange.pace import walk
from engine.exchange.state import ActionLog

__all__ = ["AccountSpec", "ExchangeServer"]

_log = logging.getLogger(__name__)

_SECONDS_TO_CLOSE = 2.0
_SECONDS_KEPT_ALIVE = 3_600
_MOST_BYTES_A_FRAME = 1024 * 1024


class ExchangeServer:
    """Replays bars to real Alpaca clients.

    Attributes:
        url: ``http://127.0.0.1:PORT``, known from the start on; sockets are at ``ws://127.0.0.1:PORT/v2/iex`` and
            ``ws://127.0.0.1:PORT/stream``.
        faults: the schedule of what it does wrong, drawn; None without one.

    Example:
        >>> with ExchangeServer(bars=bars, start=start, accounts=[account]) as exchange:  # doctest: +SKIP
        ...     client = TradingClient("key", "secret", url_override=exchange.url)
    """

    def __init__(
        self,
        *,
        bars: Bars,
        start: pd.Timestamp,
        accounts: Sequence[AccountSpec],
        host: str = "127.0.0.1",
        port: int = 0,
        speed: float | None = None,
        state: Path | None = None,
        rate_limit: int | None = None,
        faults: Faults | None = None,
        base: Bars | None = None,
    ) -> None:
        """Prepare the replay; no file or socket is touched yet.

        Args:
            start: end of the first bar that is still to come; everything before it is history at once.
            port: 0 for any free one.
            speed: None for lock-step (``POST /nextbar/advance``), ``math.inf`` for as fast as possible, 1.0 for the
                wall clock's pace, 60.0 for a simulated minute a second. Such a clock begins with the first request.
            state: file from which an interrupted exchange goes on, and to which it writes.
            rate_limit: requests an account may send in a minute; Alpaca's is 200.
            faults: what the exchange is to do wrong, to see what its clients make of it.
            base: shorter bars of the same symbols, of which ``bars`` are made: told as history, and not traded on.

        Raises:
            ConfigError: another host than this machine, a speed or limit that is no positive number, or faults at
                steps that the bars do not have.
            DataError: bars that an Alpaca-like exchange cannot carry.
        """
        if not is_loopback(host):
            raise ConfigError(f"the exchange serves this machine only: expected a loopback host, found {host!r}")
        if speed is not None and not speed > 0.0:
            raise ConfigError(f"speed: expected a positive number, found {speed}")
        if rate_limit is not None and rate_limit < 1:
            raise ConfigError(f"rate_limit: expected at least 1 request a minute, found {rate_limit}")
        self.url = ""
        self._market, self._accounts = Market(bars, start, base), tuple(accounts)
        self.faults = None if faults is None else faults.over(len(self._market))
        self._spent: list[Fault] = []
        self._exchange = self._afresh()
        self._host, self._port = host, port
        self._speed, self._rate_limit = speed, rate_limit
        self._state = state
        self._loop: asyncio.AbstractEventLoop | None = None
        self._leave: asyncio.Event | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._log: ActionLog | None = None
        self._used = False

    @property
    def faults_spent(self) -> list[Fault]:
        """The faults that have struck so far, as (step, kind) in that order; the step is that of the schedule."""
        return list(self._spent)

    def _afresh(self) -> Exchange:
        """The exchange before anything has happened."""
        return Exchange(self._market, self._accounts, faults=self.faults, spent=self._spent)

    def start(self) -> None:
        """Serve from a daemon thread; returns when it listens.

        Raises:
            BrokerError: the port is taken, or the exchange was started before.
            StorageError: the state is damaged, in use, or another exchange's.
        """
        listener = self._open()
        settled = threading.Event()

        def serve() -> None:
            try:
                self._run(listener, settled.set)
            finally:
                settled.set()

        self._thread = threading.Thread(target=serve, name="nextbar-exchange", daemon=True)
        self._thread.start()
        settled.wait()

    def run(self, on_ready: Callable[[str], None] = lambda url: None) -> None:
        """Serve in the foreground until SIGINT or SIGTERM; raises as ``start`` does.

        ``on_ready`` is called with the URL as soon as it can be reached.
        """
        listener = self._open()
        self._run(listener, lambda: on_ready(self.url), foreground=True)

    def keep(self, path: Path) -> None:
        """Begin to write the state to a new file; also from another thread, while the exchange serves.

        For an owner who knows where to keep it only after the start. The exchange must not have seen an action yet.

        Raises:
            ConfigError: an order or a step came before, or a state is kept already.
            StorageError: the file has a state already, is in use, or cannot be written.
        """

        async def begin() -> None:
            self._keep(path)

        loop = self._loop
        if loop is not None and loop.is_running():
            asyncio.run_coroutine_threadsafe(begin(), loop).result()
        else:
            self._keep(path)

    def _keep(self, path: Path) -> None:
        log = ActionLog(path, self._exchange.fingerprint)
        try:
            self._exchange.keep(log)
        except BaseException:
            log.close()
            raise
        self._log, self._state = log, path

    def stop(self) -> None:
        """Close every connection and end the thread; a second time does nothing."""
        thread, self._thread = self._thread, None
        if thread is None or self._loop is None or self._leave is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            self._loop.call_soon_threadsafe(self._leave.set)
        thread.join()

    def __enter__(self) -> ExchangeServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _open(self) -> socket.socket:
        """The listening socket, with the state restored and its log open; or neither."""
        if self._used:
            raise BrokerError("this exchange was started before; make another ExchangeServer")
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self._host, self._port))
            listener.listen(128)
            self._used = True
            self._restore()
        except OSError as error:
            listener.close()
            raise BrokerError(
                f"the exchange could not listen on {self._host}, port {self._port} ({error.strerror}); "
                "stop what uses that port, or name another one"
            ) from error
        except BaseException:
            listener.close()
            raise
        host = f"[{self._host}]" if family == socket.AF_INET6 else self._host
        self.url = f"http://{host}:{listener.getsockname()[1]}"
        return listener

    def _restore(self) -> None:
        """Let everything in the state's log happen again, and go on writing it; nothing without a state."""
        if self._state is None or self._log is not None:
            return
        log = ActionLog(self._state, self._exchange.fingerprint)
        try:
            self._exchange.restore(log)
        except BaseException:
            log.close()
            raise
        self._log = log

    def _run(self, listener: socket.socket, ready: Callable[[], None], *, foreground: bool = False) -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._serve(listener, ready, foreground))
        finally:
            if self._log is not None:
                self._log.close()

    async def _serve(self, listener: socket.socket, ready: Callable[[], None], foreground: bool) -> None:
        """Serve until told to leave; after a fault that ended the exchange, serve what its state brings back."""
        self._loop, self._leave = asyncio.get_running_loop(), asyncio.Event()
        if foreground:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._loop.add_signal_handler(number, self._leave.set)
        with listener:
            await self._serve_one(listener, ready)
            while self._exchange.interrupted and not self._leave.is_set():
                self._come_back()
                await self._serve_one(listener, lambda: None)

    def _come_back(self) -> None:
        """Forget everything but the state, as a process that was killed."""
        if self._log is not None:
            self._log.close()
        self._log, self._exchange = None, self._afresh()
        self._restore()

    async def _serve_one(self, listener: socket.socket, ready: Callable[[], None]) -> None:
        """Serve the present exchange, on a copy of the listener: who calls while it is away is only kept waiting."""
        assert self._leave is not None
        application = Application(self._exchange, speed=self._speed, rate_limit=self._rate_limit, drop=self._drop)
        server = self._server = _Server(
            uvicorn.Config(
                application,
                http="httptools",
                ws="websockets-sansio",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=_SECONDS_KEPT_ALIVE,
                ws_max_size=_MOST_BYTES_A_FRAME,
                ws_per_message_deflate=False,
                ws_ping_interval=None,  # on loopback a death is known at once, and a paused client is not dead
            ),
            leave=self._leave,
            interrupted=application.interrupted,
            ready=ready,
        )
        walker = None
        if self._speed is not None:
            walker = asyncio.ensure_future(
                walk(
                    self._exchange,
                    speed=self._speed,
                    begin=application.called_upon,
                    interrupted=application.interrupted.set,
                )
            )
            walker.add_done_callback(_report_failure)
        try:
            await server.serve(sockets=[listener.dup()])
        finally:
            if walker is not None:
                walker.cancel()
                await asyncio.gather(walker, return_exceptions=True)

    def _drop(self, client: Any) -> None:
        if self._server is not None:
            self._server.drop(client)


class _Server(uvicorn.Server):
    """uvicorn without its signals and without its ticking: it leaves when told to, or when it is interrupted."""

    def __init__(
        self, config: uvicorn.Config, *, leave: asyncio.Event, interrupted: asyncio.Event, ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._leave = leave
        self._interrupted = interrupted
        self._ready = ready

    def drop(self, client: Any) -> None:
        """End the connection of a client by its (host, port), without a word."""
        for connection in list(self.server_state.connections):
            if connection.transport.get_extra_info("peername")[:2] == tuple(client):
                connection.transport.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are the foreground's, not the server's."""
        yield

    async def main_loop(self) -> None:
        """Serve until told to leave."""
        try:
            self._ready()
        except BaseException:
            await self.shutdown()
            raise
        ends = [asyncio.ensure_future(event.wait()) for event in (self._leave, self._interrupted)]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            end.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close what is open; a client that does not let go is dropped. Interrupted, all are dropped at once."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            if self._interrupted.is_set():
                connection.transport.abort()
            else:
                connection.shutdown()
        deadline = asyncio.get_running_loop().time() + _SECONDS_TO_CLOSE
        while self.server_state.connections or self.server_state.tasks:
            if asyncio.get_running_loop().time() > deadline:
                for connection in list(self.server_state.connections):
                    connection.transport.abort()
                for task in list(self.server_state.tasks):
                    task.cancel()
                await asyncio.sleep(0)
                break
            await asyncio.sleep(0.002)
        for server in self.servers:
            await server.wait_closed()


def _report_failure(walker: asyncio.Future[None]) -> None:
    """A clock that breaks must not stand still in silence."""
    if not walker.cancelled() and (error := walker.exception()) is not None:
        _log.error("the exchange's clock has stopped: %s", error)


def _loop_factory() -> Any:
    """uvloop where there is one: it takes a third off a round trip."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop

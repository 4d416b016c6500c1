"""Notifications: joined, bounded, never in the way of trading, and silent about where they go."""

from __future__ import annotations

import builtins
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from engine.errors import ConfigError
from engine.notices import Messenger, Silence, apprise_sender, from_environment, notify_urls

FOREVER = 3600.0
URL = "json://user:pass-word-of-the-service@127.0.0.1:9/hook"


class Service:
    """A service that keeps what it gets, and waits with the first message until it is let go."""

    def __init__(self, *, works: bool = True, held: bool = False) -> None:
        self.got: list[tuple[str, str]] = []
        self.works = works
        self.arrived = threading.Event()
        self.free = threading.Event()
        if not held:
            self.free.set()

    def __call__(self, title: str, body: str) -> bool:
        self.got.append((title, body))
        self.arrived.set()
        self.free.wait(30.0)
        if not self.works:
            raise RuntimeError(URL)
        return True


def test_a_burst_of_fills_is_one_message_and_the_end_flushes_it() -> None:
    service = Service()
    notifier = Messenger(service, join_seconds=FOREVER)
    notifier.filled("run", "buy", 10.0, "AAPL", 187.32)
    notifier.filled("run", "sell", 2.5, "MSFT", 0.1 + 0.2)
    assert notifier.close() == ""
    assert service.got == [("nextbar: run", "buy 10 AAPL at 187.32\nsell 2.5 MSFT at 0.3")]


def test_a_halt_is_told_at_once_after_the_fills_before_it() -> None:
    service = Service()
    notifier = Messenger(service, join_seconds=FOREVER)
    notifier.filled("run", "buy", 1, "AAPL", 10)
    notifier.halted("run", "drawdown of 51 %\nover the limit")
    notifier.filled("run", "sell", 1, "AAPL", 9)
    notifier.trouble("run", "the feed is mute")
    notifier.ended("run", "halted")
    assert notifier.close() == ""
    assert service.got == [
        ("nextbar: run", "buy 1 AAPL at 10"),
        ("nextbar: run was halted", "trading stopped: drawdown of 51 % over the limit"),
        ("nextbar: run", "sell 1 AAPL at 9"),
        ("nextbar: run needs a look", "the feed is mute"),
        ("nextbar: run has ended", "halted"),
    ]


def test_a_long_burst_is_cut() -> None:
    service = Service()
    notifier = Messenger(service, join_seconds=FOREVER)
    for price in range(30):
        notifier.filled("run", "buy", 1, "AAPL", price)
    assert notifier.close() == ""
    ((_, body),) = service.got
    assert body.splitlines()[-2:] == ["buy 1 AAPL at 19", "and 10 more"]


def test_a_mute_service_holds_up_neither_the_run_nor_its_end() -> None:
    service = Service(held=True)
    notifier = Messenger(service, join_seconds=FOREVER, most_waiting=3)
    notifier.trouble("run", "first")
    assert service.arrived.wait(5.0)
    for price in range(50):
        notifier.filled("run", "buy", 1, "AAPL", price)
    notifier.halted("run", "drawdown")
    lost = notifier.close(timeout=0.05)
    assert lost.startswith("52 of 52 notifications could not be delivered; check")
    assert notifier.close(timeout=0.0) == ""
    service.free.set()


def test_of_too_many_that_wait_fills_are_left_out_first_and_counted() -> None:
    service = Service(held=True)
    notifier = Messenger(service, join_seconds=FOREVER, most_waiting=2)
    notifier.trouble("run", "first")
    assert service.arrived.wait(5.0)
    for price in range(4):
        notifier.filled("run", "buy", 1, "AAPL", price)
    notifier.halted("run", "drawdown")
    service.free.set()
    assert notifier.close().startswith("3 of 6 notifications")
    assert [title for title, _ in service.got][1:] == ["nextbar: run", "nextbar: run was halted"]


def test_a_service_that_fails_is_counted_once_and_never_named() -> None:
    notifier = Messenger(Service(works=False), join_seconds=0.0)
    notifier.halted("run", "drawdown")
    sentence = notifier.close()
    assert sentence.startswith("1 of 1 notifications could not be delivered")
    assert "pass-word" not in sentence
    assert notifier.close() == ""
    notifier.ended("run", "after the end nothing is taken")


def test_without_the_variable_nobody_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notifier = from_environment(environment={})
    assert isinstance(notifier, Silence)
    notifier.filled("run", "buy", 1, "AAPL", 10)
    notifier.halted("run", "drawdown")
    notifier.trouble("run", "mute")
    notifier.ended("run", "halted")
    assert notifier.close() == ""


def test_urls_are_read_from_the_environment_or_else_a_dotenv_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / ".env").write_text("NEXTBAR_NOTIFY=json://beside\n")
    assert notify_urls(tmp_path / "configs", {}) == ("json://beside",)
    (tmp_path / ".env").write_text('NEXTBAR_NOTIFY="json://here,mailto://a:b@c?to=x@y,z@y"\n')
    assert notify_urls(tmp_path / "configs", {}) == ("json://here", "mailto://a:b@c?to=x@y,z@y")
    assert notify_urls(tmp_path, {"NEXTBAR_NOTIFY": " json://a \n json://b, json://c,"}) == (
        "json://a",
        "json://b",
        "json://c",
    )
    assert notify_urls(tmp_path, {"NEXTBAR_NOTIFY": ""}) == ()


def test_without_apprise_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def none(name: str, *arguments: Any, **more: Any) -> Any:
        if name == "apprise":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(ConfigError, match=r"pip install 'nextbar\[notify\]'") as caught:
        from_environment(environment={"NEXTBAR_NOTIFY": URL})
    assert "pass-word" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a plug-in of apprise, as it is loaded
def test_apprise_itself_delivers_to_a_service_on_this_machine() -> None:
    pytest.importorskip("apprise")
    got: SimpleQueue[dict[str, Any]] = SimpleQueue()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"json://127.0.0.1:{server.server_port}/hook"
        notifier = from_environment(environment={"NEXTBAR_NOTIFY": url})
        notifier.halted("run", "drawdown")
        assert notifier.close(10.0) == ""
        server.shutdown()
    message = got.get(timeout=5.0)
    assert (message["title"], message["message"]) == ("nextbar: run was halted", "trading stopped: drawdown")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of a plug-in of apprise, as it is loaded
def test_apprise_refuses_what_is_no_service_without_showing_it(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("apprise")
    with pytest.raises(ConfigError, match="URL 2 of 2") as caught:
        apprise_sender(("json://127.0.0.1:9", "nothing://pass-word-of-the-service"))
    notifier = Messenger(apprise_sender((URL,)))
    notifier.halted("run", "drawdown")
    said = f"{caught.value} {notifier.close(10.0)}"
    shown = capfd.readouterr()
    assert "1 of 1" in said
    assert "pass-word" not in said + shown.out + shown.err

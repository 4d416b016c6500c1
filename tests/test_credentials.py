"""Where keys come from, where they may go, and that they are never shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engine.credentials import Credentials, find_credentials, load_credentials
from engine.errors import BrokerError

KEY = "PKTESTKEY000000003F"
SECRET = "s3cr3ts3cr3ts3cr3ts3cr3t"
KEYS = {"APCA_API_KEY_ID": KEY, "APCA_API_SECRET_KEY": SECRET}


def complaint(folder: Path, **environment: str) -> str:
    with pytest.raises(BrokerError) as caught:
        load_credentials(environment, folder=folder)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert "\n" not in message
    assert KEY not in message
    assert SECRET not in message
    return message


def at(endpoint: str, folder: Path) -> Credentials:
    return load_credentials({**KEYS, "APCA_API_BASE_URL": endpoint}, folder=folder)


# --- where they come from -------------------------------------------------------------------------------------------


def test_keys_from_the_environment_mean_alpaca_paper(tmp_path: Path) -> None:
    found = load_credentials(KEYS, folder=tmp_path)
    assert (found.key, found.secret, found.local) == (KEY, SECRET, False)
    assert (found.trading_url, found.data_url, found.trading_stream_url, found.data_stream("iex")) == (None,) * 4


def test_keys_from_a_dotenv_file_taken_literally_with_a_windows_mark(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        f"\ufeffAPCA_API_KEY_ID={KEY}\nexport APCA_API_SECRET_KEY='a$HOME/b+c='\n# a remark\n", encoding="utf-8"
    )
    before = dict(os.environ)
    found = load_credentials({}, folder=tmp_path)
    assert (found.key, found.secret) == (KEY, "a$HOME/b+c=")
    assert dict(os.environ) == before


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "APCA_API_KEY_ID=other\nAPCA_API_SECRET_KEY=other\nAPCA_API_BASE_URL=http://127.0.0.1:1\n"
    )
    found = load_credentials({**KEYS, "APCA_API_BASE_URL": "http://localhost:8080"}, folder=tmp_path)
    assert (found.key, found.secret, found.trading_url) == (KEY, SECRET, "http://localhost:8080")


def test_the_working_folder_is_searched_before_the_run_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, key in ((here, "here"), (there, "there")):
        folder.mkdir()
        (folder / ".env").write_text(f"APCA_API_KEY_ID={key}\nAPCA_API_SECRET_KEY=s\n")
    monkeypatch.chdir(here)
    assert find_credentials(there, {}).key == "here"
    (here / ".env").write_text("OTHER=1\n")
    assert find_credentials(there, {}).key == "there"


# --- keys that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "missing"),
    [
        ({}, "APCA_API_KEY_ID and APCA_API_SECRET_KEY: missing"),
        ({"APCA_API_KEY_ID": KEY}, "APCA_API_SECRET_KEY: missing"),
        ({"APCA_API_KEY_ID": KEY, "APCA_API_SECRET_KEY": "  "}, "APCA_API_SECRET_KEY: missing"),
        ({"APCA_API_KEY_ID": "", "APCA_API_SECRET_KEY": SECRET}, "APCA_API_KEY_ID: missing"),
    ],
)
def test_missing_keys_say_what_to_do(tmp_path: Path, environment: dict[str, str], missing: str) -> None:
    message = complaint(tmp_path, **environment)
    assert message.startswith(missing)
    for word in ("APCA_API_KEY_ID and APCA_API_SECRET_KEY", ".env", "Paper Trading", "--replay"):
        assert word in message


@pytest.mark.parametrize("broken", [f"{KEY} {KEY}", f"{KEY}\nX", f"{KEY}\tX", f"{KEY}é", f"“{KEY}”", f"{KEY}\x00"])
@pytest.mark.parametrize("name", ["APCA_API_KEY_ID", "APCA_API_SECRET_KEY"])
def test_what_no_key_has_inside_is_refused_without_showing_it(tmp_path: Path, name: str, broken: str) -> None:
    assert complaint(tmp_path, **{**KEYS, name: broken}).startswith(f"{name}: expected letters and digits")


def test_a_line_break_at_the_end_is_cut_off(tmp_path: Path) -> None:
    assert load_credentials({**KEYS, "APCA_API_KEY_ID": f"{KEY}\n"}, folder=tmp_path).key == KEY


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00\x81")
    assert ".env: could not be read" in complaint(tmp_path)


# --- where they go --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["", "https://paper-api.alpaca.markets", "HTTPS://Paper-API.alpaca.markets/"])
@pytest.mark.parametrize("version", ["", "/v2", "/v2/"])
def test_alpaca_paper_by_any_of_its_spellings(tmp_path: Path, endpoint: str, version: str) -> None:
    found = at(f"{endpoint.rstrip('/')}{version}" if endpoint else "", tmp_path)
    assert not found.local
    assert found.trading_url is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
@pytest.mark.parametrize("path", ["", "/", "/v2"])
def test_an_exchange_on_this_machine(tmp_path: Path, host: str, path: str) -> None:
    found = at(f"http://{host}:8765{path}", tmp_path)
    assert found.local
    assert found.trading_url == found.data_url == f"http://{host}:8765"
    assert found.trading_stream_url == f"ws://{host}:8765/stream"
    assert found.data_stream("sip") == f"ws://{host}:8765/v2/sip"


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://api.alpaca.markets",
        "https://api.alpaca.markets/v2",
        "http://paper-api.alpaca.markets",
        "https://paper-api.alpaca.markets:8443",
        "https://paper-api.alpaca.markets.example.com",
        "https://paper-api.alpaca.markets@example.com",
        "https://paper-api.alpaca.markets/v3",
        "https://paper-api.alpaca.markets?to=api",
        "paper-api.alpaca.markets",
        "http://127.0.0.1",
        "https://127.0.0.1:8000",
        "http://0.0.0.0:8000",
        "http://127.0.0.1.example.com:8000",
        "http://127.0.0.1:8000@example.com",
        "http://user:pass@127.0.0.1:8000",
        "http://192.168.1.5:8000",
        "http://127.0.0.1:99999",
        "http://[::1:8000",
        "ws://127.0.0.1:8000",
        "http://local\nhost:8000",
    ],
)
def test_every_other_endpoint_is_refused(tmp_path: Path, endpoint: str) -> None:
    message = complaint(tmp_path, **KEYS, APCA_API_BASE_URL=endpoint)
    assert message.startswith("APCA_API_BASE_URL: nextbar trades on paper only; expected https://paper-api.alpaca")
    assert "pass" not in message


# --- never shown ----------------------------------------------------------------------------------------------------


def test_neither_key_nor_secret_is_shown(tmp_path: Path) -> None:
    found = load_credentials(KEYS, folder=tmp_path)
    for shown in (repr(found), str(found), f"{found}", repr([found])):
        assert KEY not in shown
        assert SECRET not in shown
    assert found.masked == "PK…3F"
    assert Credentials(key="short", secret="x").masked == "…"

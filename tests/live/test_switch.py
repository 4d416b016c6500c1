"""The switch of a run: what a person has said stays said, and what cannot be read pauses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import StorageError
from engine.live.switch import FILE, Said, Switch


def test_where_nobody_has_said_anything_nothing_is_paused(tmp_path: Path) -> None:
    assert Switch(tmp_path).look() == Said()
    assert Switch(tmp_path / "nowhere").look() == Said()
    assert list(tmp_path.iterdir()) == []


def test_what_one_says_another_sees_at_its_next_look(tmp_path: Path) -> None:
    run, person = Switch(tmp_path), Switch(tmp_path)
    person.pause("lunch")
    assert run.look() == Said(paused="lunch")
    person.pause("a walk")
    assert run.look() == Said(paused="a walk")
    person.pause("")
    assert run.look() == Said()
    person.kill("enough")
    assert run.look() == Switch(tmp_path).look() == Said(killed="enough")
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


def test_the_first_reason_of_a_kill_stays_and_no_pause_lifts_it(tmp_path: Path) -> None:
    switch = Switch(tmp_path)
    switch.pause("lunch")
    switch.kill("enough")
    switch.kill("more than enough")
    assert switch.look() == Said(paused="lunch", killed="enough")
    switch.pause("")
    assert Switch(tmp_path).look() == Said(killed="enough")


def test_a_file_that_was_removed_says_nothing(tmp_path: Path) -> None:
    switch = Switch(tmp_path)
    switch.pause("lunch")
    switch.look()
    (tmp_path / FILE).unlink()
    assert switch.look() == Said()


DAMAGED = ["", "{", "[]", "5", "null", "{}", '{"paused": "lunch"}', '{"killed": ""}', "\x00\x00", '"text"']


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_file_pauses_until_it_is_put_right(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    switch = Switch(tmp_path)
    said = switch.look()
    assert "cannot be read" in said.paused
    assert said.killed == ""
    assert switch.look() == said
    switch.pause("")
    assert switch.look() == Switch(tmp_path).look() == Said()


def test_a_file_that_is_no_text_pauses(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"\xff\xfe\x80")
    assert "cannot be read" in Switch(tmp_path).look().paused


def test_a_kill_over_a_damaged_file_kills(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    Switch(tmp_path).kill("enough")
    assert Switch(tmp_path).look().killed == "enough"


def test_a_switch_that_is_a_folder_pauses_and_says_so_when_it_is_written(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    switch = Switch(tmp_path)
    assert "cannot be read" in switch.look().paused
    with pytest.raises(StorageError, match="cannot be written"):
        switch.kill("enough")


def test_where_it_cannot_be_written_says_how_to_mend_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="close the positions at the broker"):
        Switch(tmp_path / "nowhere").kill("enough")


def test_what_stands_there_is_read_once_and_again_once_it_changes(tmp_path: Path) -> None:
    switch = Switch(tmp_path)
    switch.pause("lunch")
    assert switch.look() == Said(paused="lunch")
    other = tmp_path / "other"
    other.write_text(json.dumps({"paused": "", "killed": "enough"}))
    other.replace(tmp_path / FILE)
    assert switch.look() == Said(killed="enough")

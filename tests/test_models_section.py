"""The models section of a run file: what is shared, labels, members by label, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from engine.errors import ConfigError
from engine.models_section import ModelsConfig
from engine.run_file import load_config
from engine.sections import dump

SHARED = {"features": ["log_return", "range"], "lookback": 20, "head": "quantile", "horizon": 5}


def section(kinds: dict[str, Any], **more: Any) -> ModelsConfig:
    return ModelsConfig.model_validate({"kinds": kinds, **more})


def test_what_is_shared_holds_where_the_kind_has_it_and_does_not_say_otherwise() -> None:
    kinds = section(
        {"lstm": {"lookback": 60}, "ridge": None, "ar": {}, "wide": {"kind": "lstm", "hidden": 128}}, shared=SHARED
    ).kinds
    assert (kinds["lstm"].lookback, kinds["lstm"].head, kinds["lstm"].horizon) == (60, "quantile", 5)
    assert kinds["wide"].lookback == 20
    assert (kinds["ridge"].head, kinds["ridge"].lookback) == ("point", 20)  # it has no other head
    assert (kinds["ar"].lookback, kinds["ar"].horizon) == (5, 5)  # its lookback is none of windows of features


def test_members_by_label_are_the_kinds_themselves() -> None:
    kinds = section(
        {
            "ridge": {"alpha": 2.0},
            "small": {"kind": "lstm", "hidden": 4},
            "both": {"kind": "ensemble", "members": ["ridge", "small"]},
        },
        shared=SHARED,
    ).kinds
    assert kinds["both"].members == (kinds["ridge"], kinds["small"])


def test_a_resolved_section_is_read_back_as_it_was() -> None:
    whole = section({"lstm": None, "both": {"kind": "ensemble", "members": ["lstm", {"kind": "ar"}]}}, shared=SHARED)
    assert ModelsConfig.model_validate(dump(whole)) == whole


def test_a_label_may_have_64_characters() -> None:
    assert list(section({"é" * 64: {"kind": "ar"}}).kinds) == ["é" * 64]


@pytest.mark.parametrize(
    ("kinds", "more", "words"),
    [
        ({}, {}, "expected at least one kind of model, found none"),
        ({"zzz": None}, {}, r"kinds: zzz is no kind of model; write zzz: {kind: \.\.\.}"),
        ({"": {"kind": "ar"}}, {}, "expected a label of 1 to 64 characters that can be printed, found ''"),
        ({" ": {"kind": "ar"}}, {}, "expected a label of 1 to 64"),
        ({"\x1b": {"kind": "ar"}}, {}, "expected a label of 1 to 64"),
        ({"x" * 65: {"kind": "ar"}}, {}, "expected a label of 1 to 64"),
        (
            {
                "ar": None,
                "x": {"kind": "ensemble", "members": ["ar", "ar"]},
                "y": {"kind": "ensemble", "members": ["x", "ar"]},
            },
            {},
            "an ensemble cannot be a member of an ensemble",
        ),
        ({"lstm": None}, {"shared": {"lokback": 3}}, "shared: expected keys that a kind of model has, found lokback"),
        ({"ar": None, "arima": {"horizon": 5}}, {}, "all kinds have the same horizon, found 1 of ar and 5 of arima"),
        ({"x": {"kind": "ensemble", "members": ["ar", "ets"]}}, {}, "found the label ar, which is of none"),
        ({"ar": None}, {"seeds": [1, 1]}, "expected each once, found 1 more than once"),
        ({"x": {"kind": "lstn"}}, {}, "expected a kind of model"),
    ],
)
def test_what_makes_no_sense_is_refused(kinds: dict[str, Any], more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        section(kinds, **more)


def test_a_misspelt_key_of_a_label_that_is_a_kind_is_told_the_keys_of_that_kind(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("models: {kinds: {ridge: {alpa: 2.0}}}\n")
    with pytest.raises(ConfigError, match=r"models\.kinds\.ridge\.alpa: unknown key; did you mean alpha\?"):
        load_config(path)

"""Reads a run file: safe YAML, overrides of single keys, and errors that name the YAML path."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import yaml
from pydantic import ValidationError

from engine.config import RunConfig
from engine.errors import ConfigError
from engine.model_sections import MODEL_KINDS, section_of
from engine.models_section import ModelsConfig


class _RunFileLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice (the later one would silently win) and aliases.

    A few lines of nested aliases can stand for gigabytes, and a run file is read without knowing where it comes from.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            problem = f"the alias *{event.anchor} is not supported; write the value out"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_config(path: Path, overrides: Sequence[str] = (), *, today: date | None = None) -> RunConfig:
    """Read a run file and apply ``a.b=value`` overrides (values are YAML).

    Dates relative to ``today`` become real ones here: what comes back, and its hash, says the same on any other day.

    Args:
        today: the present day in New York, if None.

    Raises:
        ConfigError: the file is missing or not YAML, or says something that cannot be; names the YAML path.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such run file; configs/ holds runnable examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the run file could not be read ({error})") from error
    values = _parse_yaml(text, str(path))
    if not isinstance(values, dict):
        found = "an empty file" if values is None else f"a {type(values).__name__}"
        raise ConfigError(
            f"{path}: a run file is a mapping of sections, found {found}; configs/ holds runnable examples"
        )
    for override in overrides:
        _apply_override(values, override)
    if "folder" in values:
        raise ConfigError(f"{path}: folder: unknown key; remove it")
    try:
        context = {"today": today or datetime.now(ZoneInfo("America/New_York")).date()}
        return RunConfig.model_validate({**values, "folder": path.parent}, context=context)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explained(error, values)}") from None


def _parse_yaml(text: str, name: str) -> Any:
    try:
        return yaml.load(text, Loader=_RunFileLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{name}: not valid YAML{where}: {problem}") from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"--set {override}: expected a.b=value, as in --set broker.cash=50000")
    node = values
    for part in parts[:-1]:
        child = node.get(part)
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {part} is not a section of the run file")
        node = child
    node[parts[-1]] = _parse_yaml(text, f"--set {override}")


# Where pydantic's own words would speak of Python, not of YAML.
_EXPECTED = {
    "dict_type": "a section of key: value lines",
    "mapping_type": "a section of key: value lines",
    "model_type": "a section of key: value lines",
    "tuple_type": "a list",
    "string_type": "text (quote what YAML reads as something else)",
    "invalid-json-value": "text, a number, true, false, a list or a section (quote a date)",
}


def explained(error: ValidationError, values: Mapping[str, Any]) -> str:
    """One sentence on the first problem, with its YAML path, and how many more there are."""
    problems = error.errors(include_url=False)
    # A misspelt key explains the required one that is missing.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    kind, found = first["type"], first["input"]
    location = _yaml_location(first["loc"], values, keep_last=kind == "missing")
    path = ".".join(location) or "the run file"
    if kind == "extra_forbidden":
        text = f"{path}: unknown key{_suggestion(location, values)}"
    elif kind == "model_kind":
        text = f"{path}{_wrong_kind(first)}"
    elif kind == "missing":
        text = f"{path}: required, and missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        message = message.replace("Tuple", "a list").removesuffix(" after validation")
        message = f"expected {_EXPECTED[kind]}" if kind in _EXPECTED else message[:1].lower() + message[1:]
        shown = ""
        if "found" not in message:
            shown = ", found nothing" if found is None else f", found {found!r}" if not _is_collection(found) else ""
        text = f"{path}: {message}{shown}"
    return text if len(problems) == 1 else f"{text} (and {len(problems) - 1} more)"


def _wrong_kind(problem: Any) -> str:
    """What is wrong with a section that no kind of model is named by."""
    found = problem["input"]
    if not isinstance(found, Mapping):
        return f": expected {_EXPECTED['model_type']}, found {found!r}"
    if "kind" not in found:
        return ".kind: required, and missing"
    close = difflib.get_close_matches(str(found["kind"]), MODEL_KINDS, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f".kind: {problem['msg'][:1].lower()}{problem['msg'][1:]}, found {found['kind']!r}{meant}"


def _is_collection(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple | set)


def _yaml_location(location: Sequence[str | int], values: Any, *, keep_last: bool) -> list[str]:
    """The steps of a pydantic location that exist in the file, without the names of union members in between."""
    steps: list[str] = []
    node = values
    for number, step in enumerate(location, start=1):
        inside = step in node if isinstance(node, Mapping) else isinstance(node, list) and step in range(len(node))
        if inside:
            node = node[step]
        elif not (keep_last and number == len(location)):
            continue
        steps.append(str(step))
    return steps


def _suggestion(location: Sequence[str], values: Mapping[str, Any]) -> str:
    model: Any = RunConfig
    node: Any = values
    for part in location[:-1]:
        node = node[int(part)] if isinstance(node, list | tuple) else node[part]
        if not part.isdigit():
            model = _section_at(model, part) or model
        model = section_of(node) or model
        if model is ModelsConfig and location[:1] == ["models"] and part in MODEL_KINDS:
            model = MODEL_KINDS[part]  # a label that is a kind's name needs no kind
    names = [field.alias or name for name, field in model.model_fields.items() if not field.exclude]
    close = difflib.get_close_matches(location[-1], names, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(names)}"


def _section_at(model: Any, name: str) -> Any:
    """The section that a key of another one holds, if it holds one."""
    fields = {field.alias or own: field for own, field in model.model_fields.items()}
    if name not in fields:  # a name of the user's own, such as a label
        return None
    annotation = fields[name].annotation
    # A section that may be absent is a union with None.
    return next((kind for kind in (annotation, *get_args(annotation)) if hasattr(kind, "model_fields")), None)

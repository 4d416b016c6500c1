"""What the sections of a run file have in common: immutable models, strict about keys, types and finite numbers."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator


class Section(BaseModel):
    """A part of the run file: immutable, and strict about keys, types and finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans_as_numbers(cls, value: Any, info: Any) -> Any:
        annotation = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and {int, float} & {annotation, *get_args(annotation)}:
            raise ValueError(f"expected a number, found the boolean {str(value).lower()}")
        return value


def matching(pattern: str, expected: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"expected {expected}, found {value!r}")
        return value

    return AfterValidator(check)


Named = TypeVar("Named", str, int)


def distinct(names: tuple[Named, ...]) -> tuple[Named, ...]:
    if not names:
        raise ValueError("expected at least one, found an empty list")
    repeated = sorted(str(name) for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise ValueError(f"expected each once, found {', '.join(repeated)} more than once")
    return names


Seed = Annotated[int, Field(ge=0, lt=2**32)]


def dump(section: Section) -> dict[str, Any]:
    """The section as plain JSON-ready values, defaults filled in."""
    return section.model_dump(mode="json", exclude_none=True)


def digest(*parts: Any) -> str:
    """SHA-256 over the canonical JSON of the parts: sorted keys, no spaces. The same values give the same hash."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()

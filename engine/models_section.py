"""What a run file may say of the kinds of models that ``nextbar models`` ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, Field, JsonValue, model_validator

from engine.model_sections import MODEL_KINDS, DescribedModel, ModelSection
from engine.sections import Section, Seed, distinct


def _label(label: str) -> str:
    if not label.strip() or not label.isprintable() or len(label) > 64:
        raise ValueError(f"expected a label of 1 to 64 characters that can be printed, found {label!r}")
    return label


def _some_kinds(kinds: Mapping[str, Any]) -> Mapping[str, Any]:
    if not kinds:
        raise ValueError("expected at least one kind of model, found none")
    return kinds


class ModelsConfig(Section):
    """Which models ``nextbar models`` ranks, each by a label; the naive forecasts are always among them.

    What ``shared`` says holds for every kind that has the key and does not say otherwise, members of ensembles
    included; of the kinds that have no features, only horizons and calibration. A label that is a kind's name needs no
    ``kind``. ``members`` of an ensemble may be labels. ``seeds`` are those of whatever is drawn by chance; default:
    ``training.seed``.
    """

    kinds: Annotated[Mapping[Annotated[str, AfterValidator(_label)], DescribedModel], AfterValidator(_some_kinds)]
    shared: Mapping[str, JsonValue] = Field(default_factory=dict)
    seeds: Annotated[tuple[Seed, ...], AfterValidator(distinct)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, values: Any) -> Any:
        """Each kind with what is shared, and members by label as what the label stands for."""
        if not isinstance(values, Mapping) or not isinstance(values.get("kinds"), Mapping):
            return values
        shared = values.get("shared") or {}
        if not isinstance(shared, Mapping):
            return values
        known = {name for section in MODEL_KINDS.values() for name in section.model_fields} - {"kind", "members"}
        strange = sorted(str(name) for name in shared if name not in known)
        if strange:
            raise ValueError(f"shared: expected keys that a kind of model has, found {', '.join(strange)}")
        unknown = [label for label, own in values["kinds"].items() if own is None and label not in MODEL_KINDS]
        if unknown:
            raise ValueError(f"kinds: {unknown[0]} is no kind of model; write {unknown[0]}: {{kind: ...}}")
        named = {
            label: {"kind": label, **(own or {})} if isinstance(own, Mapping | None) and label in MODEL_KINDS else own
            for label, own in values["kinds"].items()
        }
        kinds = {label: _with_members(own, named, shared) for label, own in named.items()}
        return {**values, "kinds": {label: _sharing(own, shared) for label, own in kinds.items()}}

    @model_validator(mode="after")
    def _alike(self) -> ModelsConfig:
        """They forecast the same thing, so that their errors can be compared."""
        (first, one), *others = self.kinds.items()
        for label, other in others:
            for key in ("horizon", "target"):
                if getattr(one, key) != getattr(other, key):
                    raise ValueError(
                        f"all kinds have the same {key}, found {getattr(one, key)} of {first} and "
                        f"{getattr(other, key)} of {label}; say it once in shared"
                    )
        return self


def _with_members(own: Any, named: Mapping[str, Any], shared: Mapping[str, Any]) -> Any:
    if not isinstance(own, Mapping) or not isinstance(own.get("members"), list | tuple):
        return own
    members = []
    for member in own["members"]:
        if isinstance(member, str) and member not in named:
            raise ValueError(f"members are sections, or labels of kinds; found the label {member}, which is of none")
        members.append(_sharing(named[member] if isinstance(member, str) else member, shared))
    return {**own, "members": members}


def _sharing(own: Any, shared: Mapping[str, Any]) -> Any:
    """A model's values with those of the shared ones that its kind has."""
    section = MODEL_KINDS.get(str(own.get("kind"))) if isinstance(own, Mapping) else None
    if section is None:
        return own
    fields = section.model_fields
    taken = {name: value for name, value in shared.items() if name in fields and _applies(name, value, section)}
    return {**taken, **own}


def _applies(name: str, value: Any, section: type[ModelSection]) -> bool:
    """Whether a shared value is for a kind: a lookback is that of windows of features, a head one that it has."""
    fields = section.model_fields
    if name not in ModelSection.model_fields and "features" not in fields:
        return False
    return name != "head" or value in get_args(fields["head"].annotation)

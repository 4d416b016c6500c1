"""What a run file may say: frozen models, unknown keys rejected, defaults in this one place."""

from __future__ import annotations

import difflib
import hashlib
import itertools
import json
from collections.abc import Hashable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from engine.errors import ConfigError

Timeframe = Annotated[str, Field(pattern=r"^([1-9][0-9]*m|[1-9][0-9]*h|1d|1w)$")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A part of the run file: immutable, and strict about keys, types and finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans_as_numbers(cls, value: Any, info: Any) -> Any:
        annotation = cls.model_fields[info.field_name].annotation
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)) and annotation is not Any:
            raise ValueError("expected a number or text, found a boolean")
        return value


def _ordered(span: tuple[date, date]) -> tuple[date, date]:
    if span[0] > span[1]:
        raise ValueError(f"a span starts before it ends, found {span[0]} after {span[1]}")
    return span


Span = Annotated[tuple[date, date], AfterValidator(_ordered)]
SpanName = Literal["train", "validate", "test"]


class Spans(Section):
    """Sessions of the decision bars, inclusive. Train, validate and test come in this order and do not overlap."""

    train: Span | None = None
    validate_: Span | None = Field(default=None, alias="validate")
    test: Span

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    @model_validator(mode="after")
    def _in_order(self) -> Spans:
        named = [(n, s) for n, s in self.named().items() if s is not None]
        for (earlier, left), (later, right) in itertools.pairwise(named):
            if left[1] >= right[0]:
                raise ValueError(f"{earlier} must end before {later} starts, found {left[1]} and {right[0]}")
        return self

    def named(self) -> dict[SpanName, tuple[date, date] | None]:
        """The three spans by name, in the order of time."""
        return {"train": self.train, "validate": self.validate_, "test": self.test}

    def get(self, name: SpanName) -> tuple[date, date]:
        """The span of that name; a ConfigError when the run file has none."""
        span = self.named()[name]
        if span is None:
            raise ConfigError(f"spans.{name}: this command needs the {name} span, and the run file has none; add it")
        return span


class DataConfig(Section):
    """Which bars: a source, its symbols, and how to read them."""

    source: str
    symbols: tuple[str, ...] = Field(min_length=1)
    timeframe: Timeframe = "1d"
    benchmark: str | None = None
    path: Path | None = None
    columns: Mapping[str, str] | None = None
    timezone: str | None = None
    stamp: Literal["start", "end"] | None = None
    warmup_bars: int = Field(default=300, ge=0)

    @field_validator("symbols")
    @classmethod
    def _distinct(cls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        repeated = sorted({s for s in symbols if symbols.count(s) > 1})
        if repeated:
            raise ValueError(f"each symbol once, found {', '.join(repeated)} more than once")
        return symbols


class LstmConfig(Section):
    """The LSTM: its features, window, horizon, head and size."""

    kind: Literal["lstm"]
    features: tuple[str, ...] = Field(min_length=1)
    lookback: int = Field(default=60, ge=1)
    horizon: int = Field(default=1, ge=1)
    head: Literal["quantile", "point", "direction"] = "quantile"
    hidden: int = Field(default=64, ge=1)
    layers: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)


class BundleReference(Section):
    """A trained bundle by its path, instead of a model to be found by hash."""

    bundle: Path


def _model_tag(value: Any) -> str:
    if isinstance(value, BundleReference) or (isinstance(value, Mapping) and "bundle" in value):
        return "bundle"
    return "lstm"


ModelConfig = Annotated[
    Annotated[LstmConfig, Tag("lstm")] | Annotated[BundleReference, Tag("bundle")], Discriminator(_model_tag)
]


class TrainingConfig(Section):
    """How the network is fitted. ``embargo`` is in bars, added after each cut."""

    seed: Seed = 7
    epochs: int = Field(default=30, ge=1)
    patience: int = Field(default=5, ge=1)
    batch: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=0.001, gt=0.0)
    embargo: int = Field(default=0, ge=0)
    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"


class StrategyConfig(Section):
    """``kind`` is ``module:Class``, or ``./file.py:Class`` relative to the run file."""

    kind: str = Field(pattern=r"^[^:]+:[A-Za-z_][A-Za-z0-9_]*$")
    params: Mapping[str, Any] = Field(default_factory=dict)


class CommissionConfig(Section):
    """Commission of one fill: max(minimum, bps of its notional + per_share of its quantity), in account currency."""

    bps: float = Field(default=0.0, ge=0.0)
    per_share: float = Field(default=0.0, ge=0.0)
    minimum: float = Field(default=0.0, ge=0.0)


class BrokerConfig(Section):
    """The account and what trading costs. Rates are per cent a year, on the days that pass between sessions."""

    cash: float = Field(default=100_000.0, gt=0.0)
    account: Literal["margin", "cash"] = "margin"
    commission: CommissionConfig = CommissionConfig()
    slippage_bps: float = Field(default=0.0, ge=0.0, lt=10_000.0)
    fractional: bool = False
    short: bool = False
    borrow_rate_pct: float = Field(default=3.0, ge=0.0)
    margin_rate_pct: float = Field(default=6.0, ge=0.0)

    @model_validator(mode="after")
    def _short_needs_margin(self) -> BrokerConfig:
        if self.short and self.account == "cash":
            raise ValueError("a cash account cannot sell short; use account: margin, or short: false")
        return self


class RiskConfig(Section):
    """Limits of the risk gate, as fractions of equity; None switches a limit off."""

    max_position: float | None = Field(default=None, gt=0.0)
    max_gross: float = Field(default=1.0, gt=0.0, le=2.0)
    max_drawdown_halt: float | None = Field(default=None, gt=0.0, le=1.0)


class RunConfig(Section):
    """A complete run file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    data: DataConfig
    spans: Spans
    model: ModelConfig | None = None
    training: TrainingConfig = TrainingConfig()
    strategy: StrategyConfig
    broker: BrokerConfig = BrokerConfig()
    risk: RiskConfig = RiskConfig()

    # Where the run file lies; relative paths in it are relative to this folder. Not part of the file or of any hash.
    folder: Path = Field(default=Path(), exclude=True, repr=False)

    def resolve(self, path: Path) -> Path:
        """A path of the run file, absolute or relative to the run file's folder."""
        return path if path.is_absolute() else self.folder / path


def dump(section: Section) -> dict[str, Any]:
    """The section as plain JSON-ready values, defaults filled in."""
    return section.model_dump(mode="json", exclude_none=True)


def digest(*parts: Any) -> str:
    """SHA-256 over the canonical JSON of the parts: sorted keys, no spaces. The same values give the same hash."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice: the later one would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a run file and apply ``a.b=value`` overrides (values are YAML).

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
        raise ConfigError(f"{path}: a run file is a mapping of sections, found {type(values).__name__}")
    if "folder" in values:
        raise ConfigError(f"{path}: folder: unknown key; remove it")
    for override in overrides:
        _apply_override(values, override)
    try:
        return RunConfig.model_validate({**values, "folder": path.parent})
    except ValidationError as error:
        raise ConfigError(f"{path}: {_explain(error)}") from None


def _parse_yaml(text: str, name: str) -> Any:
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise ConfigError(f"{name}: not valid YAML{where}: {getattr(error, 'problem', None) or error}") from None


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


def _explain(error: ValidationError) -> str:
    """One sentence on the first problem, with its YAML path, and how many more there are."""
    problems = error.errors(include_url=False)
    first = problems[0]
    location = [str(part) for part in first["loc"]]
    if location[:1] == ["model"] and location[1:2] in (["lstm"], ["bundle"]):
        del location[1]
    path = ".".join(location) or "the run file"
    if first["type"] == "extra_forbidden":
        text = f"{path}: unknown key{_suggestion(location)}"
    elif first["type"] == "missing":
        text = f"{path}: required, and missing"
    else:
        message = first["msg"].removeprefix("Value error, ")
        message = message[:1].lower() + message[1:]
        found = first["input"]
        shown = f", found {found!r}" if isinstance(found, str | int | float) and "found" not in message else ""
        text = f"{path}: {message}{shown}"
    return text if len(problems) == 1 else f"{text} (and {len(problems) - 1} more)"


def _suggestion(location: Sequence[str]) -> str:
    model: Any = RunConfig
    for part in location[:-1]:
        annotation = LstmConfig if part == "model" else model.model_fields[part].annotation
        model = annotation if hasattr(annotation, "model_fields") else None
        if model is None:
            return "; remove it"
    names = [field.alias or name for name, field in model.model_fields.items() if not field.exclude]
    close = difflib.get_close_matches(location[-1], names, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(names)}"

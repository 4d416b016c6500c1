"""What a run file may say: frozen models, unknown keys rejected, defaults in this one place. ``run_file`` reads it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from engine.errors import ConfigError
from engine.model_sections import ModelConfig
from engine.models_section import ModelsConfig
from engine.sections import Section, Seed, distinct, matching
from engine.tune_section import TuneConfig


def _printable(symbol: str) -> str:
    if not symbol.isprintable():
        raise ValueError(f"expected a symbol that can be printed, found {symbol!r}")
    return symbol


ALL = "all"
"""In the place of a source's symbols: every one that it has."""


def _all(value: Any) -> Any:
    return (ALL,) if value == ALL else value


def _all_alone(names: tuple[str, ...]) -> tuple[str, ...]:
    if ALL in names and len(names) > 1:
        raise ValueError("expected all by itself, or symbols by name; found both")
    return names


Timeframe = Annotated[
    str,
    matching(r"[1-9][0-9]*[mh]|1d|1w|1mo", "minutes, hours, a day, a week or a month, such as 5m, 1h, 1d, 1w, 1mo"),
]
Feed = Literal["iex", "sip"]
Adjustment = Literal["raw", "split", "dividend", "all"]
Symbol = Annotated[
    str,
    matching(r"[^\s,#?%]+", "a symbol without spaces and without , # ? %"),
    AfterValidator(_printable),
]


def _ordered(span: tuple[date, date]) -> tuple[date, date]:
    if span[0] > span[1]:
        raise ValueError(f"a span starts before it ends, found {span[0]} after {span[1]}")
    return span


def _day(value: Any, info: ValidationInfo) -> Any:
    """A date, or ``today`` or ``today-N`` resolved by the day on which the run file is read.

    A bare number would be read as seconds since 1970.
    """
    if isinstance(value, date) or (isinstance(value, str) and re.fullmatch(r"\d{4}-\d{2}-\d{2}", value)):
        return value
    today = (info.context or {}).get("today")
    relative = re.fullmatch(r"today(?:-([0-9]{1,5}))?", value) if isinstance(value, str) else None
    if relative is None or today is None:
        raise ValueError(f"expected a date such as 2004-09-01 or today-30, found {value!r}")
    return today - timedelta(days=int(relative[1] or 0))


Day = Annotated[date, BeforeValidator(_day)]
Span = Annotated[tuple[Day, Day], AfterValidator(_ordered)]
SpanName = Literal["train", "validate", "test"]


class Spans(Section):
    """Sessions of the decision bars, inclusive. Train, validate and test come in this order and do not overlap."""

    train: Span | None = None
    validate_: Span | None = Field(default=None, alias="validate")
    test: Span

    model_config = ConfigDict(serialize_by_alias=True)

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

    @property
    def extent(self) -> tuple[date, date]:
        """From the first span's first session to the last one's last."""
        there = [span for span in self.named().values() if span is not None]
        return there[0][0], there[-1][1]


class FoldsConfig(Section):
    """Many cuts over the stretch that the spans cover; sizes in sessions, ``purge`` and ``embargo`` in bars.

    ``sliding`` and ``expanding`` take ``train``, ``validate``, ``test`` and ``step`` (default: ``test``);
    ``combinatorial`` takes ``parts`` and ``test_parts``. ``purge`` is the model's horizon where it is not given.
    """

    kind: Literal["sliding", "expanding", "combinatorial"] = "sliding"
    train: int | None = Field(default=None, ge=1)
    validate_: int | None = Field(default=None, ge=0, alias="validate")
    test: int | None = Field(default=None, ge=1)
    step: int | None = Field(default=None, ge=1)
    parts: int | None = Field(default=None, ge=3)
    test_parts: int | None = Field(default=None, ge=1)
    purge: int | None = Field(default=None, ge=0)
    embargo: int = Field(default=0, ge=0)

    model_config = ConfigDict(serialize_by_alias=True)

    @model_validator(mode="after")
    def _of_one_kind(self) -> FoldsConfig:
        walking = {"train": self.train, "test": self.test}
        walking_too = {"validate": self.validate_, "step": self.step}
        combining = {"parts": self.parts, "test_parts": self.test_parts}
        needed, others = (combining, {**walking, **walking_too})
        if self.kind != "combinatorial":
            needed, others = walking, combining
        missing = [name for name, value in needed.items() if value is None]
        strange = [name for name, value in others.items() if value is not None]
        if missing:
            raise ValueError(f"{self.kind} folds need {' and '.join(needed)}, found no {' and no '.join(missing)}")
        if strange:
            raise ValueError(f"{self.kind} folds have no {' and no '.join(strange)}; remove it, or change the kind")
        if self.parts is not None and self.test_parts is not None and self.test_parts >= self.parts:
            raise ValueError(
                f"test_parts must leave parts to train on, found {self.test_parts} of {self.parts}; lower it"
            )
        return self


class CleaningConfig(Section):
    """What is done with each kind of fault in the bars; what each kind is, docs/data.md says.

    What cannot be a bar is dropped, what contradicts itself is refused, what may be real is flagged: kept, and told.
    """

    duplicate: Literal["drop", "refuse"] = "drop"
    conflict: Literal["drop", "refuse"] = "refuse"
    disorder: Literal["repair", "refuse"] = "repair"
    missing_value: Literal["drop", "repair", "refuse"] = "drop"
    impossible: Literal["drop", "repair", "refuse"] = "drop"
    off_session: Literal["drop", "flag", "refuse"] = "drop"
    gap: Literal["flag", "refuse"] = "flag"
    stale: Literal["flag", "drop", "refuse"] = "flag"
    spike: Literal["flag", "drop", "repair", "refuse"] = "flag"
    jump: Literal["flag", "refuse"] = "flag"
    zero_volume: Literal["flag", "drop", "refuse"] = "flag"
    late_start: Literal["flag", "refuse"] = "flag"
    early_end: Literal["flag", "refuse"] = "flag"


def _all_of_universe(value: Any, info: ValidationInfo) -> Any:
    """Symbols that are left out are all of the universe's; without one they have to be there."""
    if value != ():
        return value
    if info.data.get("universe") is None:
        raise PydanticCustomError("missing", "Field required")
    return (ALL,)


class DataConfig(Section):
    """Which bars: a source, its symbols, and how to read them."""

    source: str
    universe: Path | None = None
    symbols: Annotated[
        tuple[Symbol, ...],
        BeforeValidator(_all),
        BeforeValidator(_all_of_universe),
        AfterValidator(distinct),
        AfterValidator(_all_alone),
    ] = Field(default=(), validate_default=True)
    timeframe: Timeframe = "1d"
    base: Timeframe | None = None
    slower: Annotated[tuple[Timeframe, ...], AfterValidator(distinct)] | None = None
    cleaning: CleaningConfig = CleaningConfig()
    benchmark: str | None = None
    path: Path | None = None
    columns: Mapping[str, str] | None = None
    timezone: str | None = None
    stamp: Literal["start", "end"] | None = None
    date_format: str | None = None
    start: Day | None = None
    feed: Feed | None = None
    adjustment: Adjustment | None = None
    warmup_bars: int = Field(default=300, ge=0)


class TrainingConfig(Section):
    """How the network is fitted. ``embargo`` is in bars, left out before each cut.

    ``walk_forward`` trains a model for each of the run file's folds, which take over from one another; with
    ``warm_start`` each goes on from the weights of the one before it.
    """

    seed: Seed = 7
    epochs: int = Field(default=30, ge=1)
    patience: int = Field(default=5, ge=1)
    batch: int = Field(default=256, ge=1)
    learning_rate: float = Field(default=0.001, gt=0.0)
    embargo: int = Field(default=0, ge=0)
    accelerator: str = "auto"
    devices: int | Literal["auto"] = "auto"
    walk_forward: bool = False
    warm_start: bool = False


class StrategyConfig(Section):
    """``kind`` is ``module:Class``, or ``./file.py:Class`` relative to the run file."""

    kind: Annotated[str, matching(r"[^:]+:[A-Za-z_][A-Za-z0-9_]*", "module:Class or ./file.py:Class")]
    params: Mapping[str, JsonValue] = Field(default_factory=dict)


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

    @property
    def round_trip_bps(self) -> float:
        """Proportional cost of an entry and its exit: twice commission and slippage, without minimum or per-share."""
        return 2.0 * (self.commission.bps + self.slippage_bps)


class RiskConfig(Section):
    """Limits of the risk gate; None switches a limit off.

    Positions, gross exposure and losses are fractions of equity; ``max_order_notional`` is in account currency,
    ``price_collar`` a fraction of the last close. The last three are on the wall clock and act in live trading only;
    ``stale_model_days`` are those since the last bar that the model was trained or chosen on, and pause entries.
    """

    max_position: float | None = Field(default=None, gt=0.0)
    max_gross: float = Field(default=1.0, gt=0.0, le=2.0)
    max_drawdown_halt: float | None = Field(default=None, gt=0.0, le=1.0)
    max_daily_loss_halt: float | None = Field(default=None, gt=0.0, le=1.0)
    max_order_notional: float | None = Field(default=None, gt=0.0)
    price_collar: float | None = Field(default=None, gt=0.0)
    symbols: Annotated[tuple[Symbol, ...], AfterValidator(distinct)] | None = None
    max_orders_per_minute: int | None = Field(default=None, ge=1)
    stale_seconds: float | None = Field(default=None, gt=0.0)
    stale_model_days: int | None = Field(default=None, ge=1)

    def on_bars(self) -> RiskConfig:
        """Without the limits on the wall clock, for a run whose bars do not pass by it."""
        return self.model_copy(update={"max_orders_per_minute": None, "stale_seconds": None, "stale_model_days": None})


def _with_costs(values: Any, broker: BrokerConfig) -> Any:
    """The values of a section, or of several in it, with ``flat_bps: costs`` as a number."""
    if isinstance(values, list | tuple):
        return [_with_costs(value, broker) for value in values]
    if not isinstance(values, Mapping):
        return values
    made = {name: _with_costs(value, broker) for name, value in values.items()}
    return {**made, "flat_bps": broker.round_trip_bps} if made.get("flat_bps") == "costs" else made


class RunConfig(Section):
    """A complete run file."""

    name: Annotated[
        str,
        matching(
            r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", "letters, digits, and . _ - after the first, 64 characters at most"
        ),
    ]
    data: DataConfig
    spans: Spans
    folds: FoldsConfig | None = None
    model: ModelConfig | None = None
    models: ModelsConfig | None = None
    training: TrainingConfig = TrainingConfig()
    strategy: StrategyConfig
    broker: BrokerConfig = BrokerConfig()
    risk: RiskConfig = RiskConfig()
    tune: TuneConfig | None = None

    # Where the run file lies; relative paths in it are relative to this folder. Not part of the file or of any hash.
    folder: Path = Field(default=Path(), exclude=True, repr=False)

    @model_validator(mode="before")
    @classmethod
    def _flat_is_what_costs_take(cls, values: Any) -> Any:
        """``flat_bps: costs`` as the number that it stands for, so that it is part of what a bundle's hash is of."""
        if not isinstance(values, Mapping):
            return values
        try:
            broker = BrokerConfig.model_validate(values.get("broker") or {})
        except ValidationError:
            return values  # which is said in its own place
        sections = {name: _with_costs(values[name], broker) for name in ("model", "models") if name in values}
        return {**values, **sections}

    def resolve(self, path: Path) -> Path:
        """A path of the run file, absolute or relative to the run file's folder."""
        return path if path.is_absolute() else self.folder / path

"""What a run file may say of a search: how many trials, judged by what, over which values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, JsonValue, Tag, model_validator

from engine.sections import Section, Seed

Metric = Literal["mae", "pinball", "r2_out_of_sample", "rank_ic", "sharpe"]


class RangeConfig(Section):
    """Numbers from ``low`` to ``high``, both included; whole ones where both are.

    ``log`` draws small ones as often as large ones, ``step`` leaves room between them: where the range is no multiple
    of it, the last step below ``high`` is the largest.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _from_low_to_high(self) -> RangeConfig:
        if not self.low < self.high:
            raise ValueError(f"low must be below high, found {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs a low above 0, found {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together; remove one")
        if self.whole and isinstance(self.step, float) and not self.step.is_integer():
            raise ValueError(f"whole numbers take a whole step, found {self.step}; write low and high with a point")
        if self.step is not None and self.step > (self.high - self.low) * (1 if self.whole else 1 + 1e-9):
            raise ValueError(f"step must fit between low and high, found {self.step} from {self.low} to {self.high}")
        return self

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)


def _any(choices: tuple[JsonValue, ...]) -> tuple[JsonValue, ...]:
    if not choices:
        raise ValueError("expected at least one value, found an empty list")
    return choices


Choices = Annotated[tuple[JsonValue, ...], AfterValidator(_any)]


def _form(value: Any) -> str:
    return "a range" if isinstance(value, Mapping | RangeConfig) else "choices"


Searched = Annotated[Annotated[RangeConfig, Tag("a range")] | Annotated[Choices, Tag("choices")], Discriminator(_form)]


def _some(space: Mapping[str, Any]) -> Mapping[str, Any]:
    if not space:
        raise ValueError("expected at least one key of the run file, found none")
    return space


class TuneConfig(Section):
    """A search by ``nextbar tune``, scored on validation folds; the test span is never looked at.

    ``space`` says of a key of the run file, as ``model.hidden``, which values are tried: a list, or a range.
    ``folds`` is how many validation folds there are where the run file has no ``folds`` section, or one that is tested.
    """

    trials: int = Field(default=30, ge=1)
    seed: Seed = 7
    sampler: Literal["tpe", "random"] = "tpe"
    metric: Metric = "mae"
    folds: int = Field(default=3, ge=1)
    prune: bool = True
    workers: int = Field(default=1, ge=1, le=64)
    space: Annotated[Mapping[str, Searched], AfterValidator(_some)]

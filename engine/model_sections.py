"""What a run file may say of a model: one section a kind, told apart by ``kind``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from engine.sections import Section, distinct

HeadName = Literal["quantile", "point", "direction"]
TargetName = Literal["return", "excess"]
Count = Annotated[int, Field(ge=1)]
# Upper bounds are far above what is of use: a slip of the keyboard is told so, and takes no memory.
Width = Annotated[int, Field(ge=1, le=4096)]
Depth = Annotated[int, Field(ge=1, le=64)]
Rows = Annotated[int, Field(ge=1, le=100_000)]
Steps = Annotated[int, Field(ge=1, le=10_000)]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]


class ModelSection(Section):
    """What every kind has: the steps ahead, in bars, and how its intervals are calibrated.

    ``horizon`` is what is traded and scored; ``more_horizons`` are forecast beside it by the same model.
    """

    if TYPE_CHECKING:

        @property
        def kind(self) -> str:
            """The name that tells it apart."""

        @property
        def features(self) -> tuple[str, ...]:
            """What a row of a window holds."""

        @property
        def lookback(self) -> int:
            """Rows of a window."""

        @property
        def head(self) -> str:
            """What is forecast, and how it is learned."""

        @property
        def target(self) -> str:
            """``return``: the log return; ``excess``: what it is above the median of all symbols at that bar."""

    horizon: Steps = 1
    more_horizons: Annotated[tuple[Steps, ...], AfterValidator(distinct)] | None = None
    calibration: Literal["none", "conformal", "adaptive"] = "none"

    @model_validator(mode="after")
    def _each_horizon_once(self) -> ModelSection:
        if self.horizon in (self.more_horizons or ()):
            raise ValueError(f"more_horizons are those beside the horizon, found {self.horizon} in both; remove one")
        return self

    @property
    def horizons(self) -> tuple[int, ...]:
        """All steps ahead, the traded one first."""
        return self.horizon, *(self.more_horizons or ())


class WindowModel(ModelSection):
    """A model of windows of features: [lookback, features] in, a forecast out.

    ``flat_bps`` is how far a return may be from zero, in basis points, and be flat for ``head: direction``; a run file
    may say ``costs`` for those of a round trip. Without it flat is the middle third of the training span.

    With ``target: excess`` it forecasts how far a symbol's log return will be above the median one of all symbols over
    the same bars; it still sees its own symbol's bars alone.
    """

    features: Annotated[tuple[str, ...], AfterValidator(distinct)]
    lookback: Rows = 60
    head: HeadName = "quantile"
    target: TargetName = "return"
    flat_bps: float | None = Field(default=None, ge=0.0)

    @model_validator(mode="after")
    def _classes_of_a_direction(self) -> WindowModel:
        if self.flat_bps is not None and self.head != "direction":
            raise ValueError(f"flat_bps says what is flat for head: direction, found head: {self.head}; remove one")
        return self

    @model_validator(mode="after")
    def _no_errors_as_bars_arrive(self) -> WindowModel:
        if self.target == "excess" and self.calibration == "adaptive":
            raise ValueError(
                "adaptive intervals follow one symbol's errors, and an excess over the others is not known from its "
                "bars; use calibration: conformal or none"
            )
        return self


# --- networks --------------------------------------------------------------------------------------------------------


class _Recurrent(WindowModel):
    hidden: Width = 64
    layers: Depth = 2
    dropout: Share = 0.1


class RnnConfig(_Recurrent):
    """The plain recurrent network (Elman 1990): its window, horizon, head and size."""

    kind: Literal["rnn"]
    hidden: Width = 32


class GruConfig(_Recurrent):
    """The gated recurrent unit: its window, horizon, head and size."""

    kind: Literal["gru"]
    layers: Depth = 1


class LstmConfig(_Recurrent):
    """The LSTM: its features, window, horizon, head and size.

    ``bidirectional`` reads the window, and no more than it, in both directions; ``pooling`` is what stands for it: the
    last hidden state, or that beside a mean of all of them that attention weighs.
    """

    kind: Literal["lstm"]
    bidirectional: bool = False
    pooling: Literal["last", "attention"] = "last"


class CnnConfig(WindowModel):
    """Causal convolutions over the window, one after the other."""

    kind: Literal["cnn"]
    channels: Width = 32
    kernel: Annotated[int, Field(ge=2, le=4096)] = 5
    layers: Depth = 3
    dropout: Share = 0.1


class TcnConfig(WindowModel):
    """Residual blocks of causal convolutions whose dilation doubles (Bai, Kolter & Koltun 2018)."""

    kind: Literal["tcn"]
    channels: Width = 32
    kernel: Annotated[int, Field(ge=2, le=4096)] = 3
    layers: Depth = 4
    dropout: Share = 0.1


class CnnLstmConfig(_Recurrent):
    """Causal convolutions, and an LSTM of ``layers`` layers over what they give."""

    kind: Literal["cnn_lstm"]
    channels: Width = 32
    kernel: Annotated[int, Field(ge=2, le=4096)] = 5
    convolutions: Depth = 2
    layers: Depth = 1


class TransformerConfig(WindowModel):
    """A small Transformer encoder over the window; ``hidden`` is its width, of which each head has its part."""

    kind: Literal["transformer"]
    hidden: Width = 32
    heads: Width = 4
    layers: Depth = 2
    dropout: Share = 0.1

    @model_validator(mode="after")
    def _heads_divide(self) -> TransformerConfig:
        # Each head multiplies rows of its part; see models.networks.aligned for why they come in fours.
        if self.hidden % (4 * self.heads):
            raise ValueError(f"hidden must be a multiple of 4 times heads, found {self.hidden} and {self.heads} heads")
        return self


class MlpConfig(WindowModel):
    """Fully connected layers over the flattened window."""

    kind: Literal["mlp"]
    hidden: Width = 64
    layers: Depth = 2
    dropout: Share = 0.1


# --- regression ------------------------------------------------------------------------------------------------------


class RidgeConfig(WindowModel):
    """Ridge regression on the flattened window; without ``alpha`` the validation span chooses the penalty."""

    kind: Literal["ridge"]
    head: Literal["point"] = "point"
    alpha: Annotated[float, Field(gt=0.0)] | None = None


class ElasticNetConfig(WindowModel):
    """Elastic net on the flattened window; without ``alpha`` the validation span chooses the penalty."""

    kind: Literal["elastic_net"]
    head: Literal["point"] = "point"
    alpha: Annotated[float, Field(gt=0.0)] | None = None
    l1_ratio: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5


class BoostingConfig(WindowModel):
    """Gradient-boosted trees (LightGBM) on the flattened window; the validation span says when to stop."""

    kind: Literal["boosting"]
    lookback: Rows = 10
    head: Literal["point", "quantile"] = "point"
    trees: Rows = 300
    leaves: Annotated[int, Field(ge=2, le=100_000)] = 15
    rate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.03
    least_in_leaf: Count = 50


# --- time series and baselines ---------------------------------------------------------------------------------------


class ReturnsModel(ModelSection):
    """A linear model of the last log returns: it has no features to choose."""

    @property
    def features(self) -> tuple[str, ...]:
        """The log return of each bar."""
        return ("log_return",)

    @property
    def head(self) -> str:
        """One number, with an interval from its errors."""
        return "point"

    @property
    def target(self) -> str:
        """The symbol's own log return."""
        return "return"


class ArConfig(ReturnsModel):
    """Autoregression of the log return on its last ``lookback`` ones."""

    kind: Literal["ar"]
    lookback: Rows = 5


class ArimaConfig(ReturnsModel):
    """ARMA(p, q) of the log returns, ARIMA(p, 1, q) of log prices, filtered over the last ``lookback`` returns."""

    kind: Literal["arima"]
    lookback: Rows = 100
    p: Annotated[int, Field(ge=0, le=20)] = 1
    q: Annotated[int, Field(ge=0, le=20)] = 1


class EtsConfig(ReturnsModel):
    """Exponential smoothing of log prices with additive errors, over the last ``lookback`` returns."""

    kind: Literal["ets"]
    lookback: Rows = 250
    trend: Literal["none", "additive", "damped"] = "damped"


class _Baseline(ReturnsModel):
    @property
    def lookback(self) -> int:
        """The last bar, from which nothing is taken."""
        return 1


class ZeroConfig(_Baseline):
    """The price stays where it is."""

    kind: Literal["zero"]


class MeanConfig(_Baseline):
    """The mean return of the training span."""

    kind: Literal["mean"]


class LastReturnConfig(ReturnsModel):
    """The return over the last horizon repeats."""

    kind: Literal["last_return"]

    @property
    def lookback(self) -> int:
        """The returns that add up to the longest one."""
        return max(self.horizons)


# --- ensembles -------------------------------------------------------------------------------------------------------


def _kind_of(value: Any) -> str | None:
    """The tag of a model's section, or of the values it is to be made of; None for what no kind is named by."""
    if isinstance(value, BundleReference) or (isinstance(value, Mapping) and "bundle" in value):
        return "a bundle"
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return kind if isinstance(kind, str) and kind in MODEL_KINDS else None


def _by_kind(expected: str) -> Discriminator:
    return Discriminator(_kind_of, custom_error_type="model_kind", custom_error_message=f"expected {expected}")


Single = (
    Annotated[RnnConfig, Tag("rnn")]
    | Annotated[GruConfig, Tag("gru")]
    | Annotated[LstmConfig, Tag("lstm")]
    | Annotated[CnnConfig, Tag("cnn")]
    | Annotated[TcnConfig, Tag("tcn")]
    | Annotated[CnnLstmConfig, Tag("cnn_lstm")]
    | Annotated[TransformerConfig, Tag("transformer")]
    | Annotated[MlpConfig, Tag("mlp")]
    | Annotated[RidgeConfig, Tag("ridge")]
    | Annotated[ElasticNetConfig, Tag("elastic_net")]
    | Annotated[BoostingConfig, Tag("boosting")]
    | Annotated[ArConfig, Tag("ar")]
    | Annotated[ArimaConfig, Tag("arima")]
    | Annotated[EtsConfig, Tag("ets")]
    | Annotated[ZeroConfig, Tag("zero")]
    | Annotated[MeanConfig, Tag("mean")]
    | Annotated[LastReturnConfig, Tag("last_return")]
)


_single = [get_args(member)[0] for member in get_args(Single)]
_single_kinds = [get_args(section.model_fields["kind"].annotation)[0] for section in _single]

Member = Annotated[Single, _by_kind(f"a kind of model that is none of several: {', '.join(_single_kinds)}")]


class EnsembleConfig(ModelSection):
    """Several models of the same horizons whose forecasts are combined.

    ``mean`` of them; ``weighted`` by their errors on the validation span; ``stacked``: a regression on their
    out-of-fold forecasts; ``online``: weights that follow from the errors of the last ``window`` bars whose outcome is
    known, more sharply the higher ``rate`` is. What ``features``, ``lookback``, ``head`` and ``target`` say holds for
    the members that do not say otherwise.
    """

    kind: Literal["ensemble"]
    combine: Literal["mean", "weighted", "stacked", "online"] = "mean"
    members: Annotated[tuple[Member, ...], Field(min_length=2)]
    window: Rows = 60
    rate: Annotated[float, Field(gt=0.0)] = 1.0

    @model_validator(mode="before")
    @classmethod
    def _shared(cls, values: Any) -> Any:
        """What is said for all members is said of each, and is no key of the ensemble."""
        if not isinstance(values, Mapping) or not isinstance(values.get("members"), list | tuple):
            return values
        own, members = dict(values), []
        said = {name: own.pop(name) for name in ("features", "lookback", "head", "target") if name in own}
        said |= {name: own[name] for name in ("horizon", "more_horizons") if name in own}
        for member in own["members"]:
            if _kind_of(member) == "ensemble":
                raise ValueError("an ensemble cannot be a member of an ensemble; write its members instead")
            if isinstance(member, Mapping):
                known = getattr(MODEL_KINDS.get(str(member.get("kind"))), "model_fields", {})
                member = {**{name: value for name, value in said.items() if name in known}, **member}
            members.append(member)
        return {**own, "members": members}

    @model_validator(mode="after")
    def _one_horizon(self) -> EnsembleConfig:
        for member in self.members:
            if member.horizons != self.horizons:
                raise ValueError(
                    f"all members forecast the ensemble's horizons {list(self.horizons)}, found {member.kind} with "
                    f"{list(member.horizons)}"
                )
        return self

    @model_validator(mode="after")
    def _one_target(self) -> EnsembleConfig:
        for member in self.members:
            if member.target != self.target:
                raise ValueError(
                    f"all members have one target, found {self.members[0].kind} with {self.target} and {member.kind} "
                    f"with {member.target}"
                )
        if self.target == "excess" and (self.combine == "online" or self.calibration == "adaptive"):
            raise ValueError(
                "online weights and adaptive intervals follow one symbol's errors, and an excess over the others is "
                "not known from its bars; choose others"
            )
        return self

    @property
    def target(self) -> str:
        """What all members forecast."""
        return self.members[0].target


class BundleReference(Section):
    """A trained bundle by its path, instead of a model to be found by hash."""

    bundle: Path


MODEL_KINDS: Mapping[str, type[ModelSection]] = {
    **dict(zip(_single_kinds, _single, strict=True)),
    "ensemble": EnsembleConfig,
}
"""Kind -> its section."""

DescribedModel = Annotated[
    Single | Annotated[EnsembleConfig, Tag("ensemble")], _by_kind(f"a kind of model: {', '.join(MODEL_KINDS)}")
]

ModelConfig = Annotated[
    Single | Annotated[EnsembleConfig, Tag("ensemble")] | Annotated[BundleReference, Tag("a bundle")],
    _by_kind(f"bundle: PATH, or a kind of model: {', '.join(MODEL_KINDS)}"),
]


def section_of(values: Any) -> type[Section] | None:
    """The section that a model's values are meant for, before they are checked."""
    if isinstance(values, Mapping):
        return BundleReference if "bundle" in values else MODEL_KINDS.get(str(values.get("kind")))
    return None

"""How many bars a forecast depends on. Every model has a finite memory, ensembles and online weights included."""

from __future__ import annotations

from engine.model_sections import EnsembleConfig, ModelSection
from models.features import max_memory, parse_features

ADAPTIVE_SCORES, ADAPTIVE_STEPS = 50, 50
"""Of an adaptive interval: known outcomes that a quantile is of, and from which its level starts anew."""


def memory_of(model: ModelSection, *, close_only: bool) -> int:
    """Bars that a forecast of the model and its interval depend on, the decision bar included.

    Raises:
        ConfigError: a feature is unknown, or needs more than close-only bars have.
    """
    own = forecast_memory(model, close_only=close_only)
    return own + adaptive_memory(max(model.horizons)) if model.calibration == "adaptive" else own


def adaptive_memory(horizon: int) -> int:
    """Bars before those of a forecast, on which its adaptive interval depends besides."""
    return ADAPTIVE_SCORES + ADAPTIVE_STEPS + 2 * horizon - 2


def forecast_memory(model: ModelSection, *, close_only: bool) -> int:
    """Bars that a forecast depends on before its interval is calibrated: as many as the model is fitted with.

    Raises:
        ConfigError: see ``memory_of``.
    """
    if isinstance(model, EnsembleConfig):
        longest = max(memory_of(member, close_only=close_only) for member in model.members)
        online = model.combine == "online"
        return longest + (online_reach(horizon=max(model.horizons), window=model.window) if online else 0)
    return model.lookback + max_memory(parse_features(model.features, close_only=close_only)) - 1


def online_reach(*, horizon: int, window: int) -> int:
    """Bars before a bar at which online weights look back for forecasts whose outcome is known at it."""
    return window + horizon - 1

"""How many bars a forecast depends on. Every model has a finite memory, ensembles and online weights included."""

from __future__ import annotations

from engine.model_sections import EnsembleConfig, ModelSection
from models.features import max_memory, parse_features


def memory_of(model: ModelSection, *, close_only: bool) -> int:
    """Bars that a forecast of the model depends on, the decision bar included.

    Raises:
        ConfigError: a feature is unknown, or needs more than close-only bars have.
    """
    if isinstance(model, EnsembleConfig):
        return max(memory_of(member, close_only=close_only) for member in model.members)
    return model.lookback + max_memory(parse_features(model.features, close_only=close_only)) - 1

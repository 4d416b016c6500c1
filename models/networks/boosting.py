"""Gradient boosting as a network: trees in the place of a body, and heads that take the trees' sums as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from engine.model_sections import BoostingConfig
from models.networks import Network
from models.networks.heads import Head, PointHead, QuantileHead
from models.networks.trees import Forest, parse_trees

QUANTILES = ("median", "lower", "upper")
"""The sums of a quantile head, in its outputs' order."""


class SumHead(Head):
    """A head whose outputs are its share of the state."""

    first = 0

    def take(self, at: int) -> None:
        """Be the head of the horizon with that place."""
        del self.project  # nothing is projected
        self.first = at * self.outputs

    def forward(self, state: torch.Tensor) -> torch.Tensor:
        """State [batch, all outputs] -> outputs [batch, outputs]."""
        return state[:, self.first : self.first + self.outputs]


class SumPointHead(SumHead, PointHead):
    """One sum of trees, in scaled units."""


class SumQuantileHead(SumHead, QuantileHead):
    """Three sums of trees, each fitted to its own quantile, and put in order so that they cannot cross."""

    def _quantiles(self, outputs: torch.Tensor) -> torch.Tensor:
        """Median, lower and upper in scaled units, [batch, 3]."""
        return outputs.sort(dim=1).values[:, [1, 0, 2]]


class Trees(nn.Module):
    """Flattened, scaled windows to the sums of trees: all of one horizon, then all of the next.

    Args:
        config: features, lookback, horizons and head; the most trees and leaves that a text may have.
    """

    def __init__(self, config: BoostingConfig) -> None:
        super().__init__()
        names = QUANTILES if config.head == "quantile" else ("point",)
        self.files = tuple(f"boosting-{ahead}-{name}.txt" for ahead in config.horizons for name in names)
        self.size = len(self.files)
        self.multiply_adds = 0
        self.texts: dict[str, bytes] = {}
        self._config = config
        self.forest = Forest([() for _ in self.files])

    def load(self, texts: Mapping[str, bytes]) -> None:
        """Take the trees of LightGBM's texts, by the names of ``files``.

        Raises:
            ValueError: a text is missing or damaged, or is another model's.
        """
        config = self._config
        sums = []
        for name in self.files:
            if name not in texts:
                raise ValueError(f"{name} is missing")
            try:
                trees = parse_trees(
                    texts[name],
                    inputs=config.lookback * len(config.features),
                    most_trees=config.trees,
                    most_leaves=config.leaves,
                )
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            sums.append(trees)
        self.texts = {name: texts[name] for name in self.files}
        self.forest = Forest(sums)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Scaled windows [batch, lookback, features] -> sums [batch, horizons * outputs]."""
        return torch.from_numpy(self.forest(windows.flatten(1).numpy())).float()


class BoostedNetwork(Network):
    """Scaling, trees, and a head for each horizon; without trees until texts are loaded."""

    def __init__(self, config: BoostingConfig) -> None:
        trees = Trees(config)
        heads: Sequence[SumHead] = [
            SumQuantileHead(1) if config.head == "quantile" else SumPointHead(1) for _ in config.horizons
        ]
        for at, head in enumerate(heads):
            head.take(at)
        super().__init__(len(config.features), trees, heads)

    @property
    def multiply_adds(self) -> int:
        """None: trees compare and add."""
        return 0

    @property
    def learned(self) -> int:
        """The trees' thresholds and leaves."""
        return self._trees.forest.numbers

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the sums' texts, horizon by horizon."""
        return self._trees.files

    @property
    def _trees(self) -> Trees:
        body = self.body
        if not isinstance(body, Trees):
            raise TypeError(f"expected trees, found {type(body).__name__}")
        return body

    def texts(self) -> Mapping[str, bytes]:
        """LightGBM's own text of each sum of trees."""
        return self._trees.texts

    def load_texts(self, texts: Mapping[str, bytes]) -> None:
        """Take what ``texts`` gave.

        Raises:
            ValueError: a text is missing or damaged, or is another model's.
        """
        self._trees.load(texts)

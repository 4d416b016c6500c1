"""Windows as views: all symbols' feature rows end to end in one array; a batch is one gather by index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch.utils.data import DataLoader, Dataset, Sampler

from engine.data.bars import Bars
from models.excess import ends_after, excess_of
from models.features import Columns, Feature, Floats, compute, max_memory

Singles = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Batch = tuple[torch.Tensor, torch.Tensor]


def windows_of(features: Singles, lookback: int) -> Singles:
    """A read-only view [bars - lookback + 1, lookback * features]: row i is the window of rows i to i + lookback - 1.

    Args:
        features: contiguous float32 [bars, features] with bars >= lookback.
        lookback: rows of a window.
    """
    width = features.shape[1]
    flat: Singles = features.reshape(-1)
    return sliding_window_view(flat, lookback * width)[::width]


def labels_of(close: Floats, horizon: int) -> Singles:
    """log(close[t + horizon] / close[t]), float32 [bars]; NaN in the last ``horizon`` bars."""
    labels = np.full(len(close), np.nan, dtype=np.float32)
    if len(close) > horizon:
        labels[:-horizon] = np.log(close[horizon:] / close[:-horizon])
    return labels


def _excesses(bars: Bars, columns: Sequence[Columns], returns: Singles, horizon: int) -> Singles:
    """The log returns of all symbols' bars, end to end [total bars], less the median of the members' over each stretch.

    Of bars that lie in no universe every symbol is counted.
    """
    starts = np.concatenate([part.times for part in columns])
    ends = np.concatenate([ends_after(part.times, horizon) for part in columns])
    inside = bars.inside
    counted = np.concatenate(
        [np.ones(len(f), dtype=bool) if inside is None else inside[symbol] for symbol, f in bars.frames.items()]
    )
    return excess_of(returns.astype(np.float64), starts, ends, counted).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows and labels of several symbols.

    A *row* is the position of a decision bar in the joined arrays; its window ends at that row.

    Attributes:
        features: float32 [total bars, features], NaN where a feature's memory is not filled.
        labels: float32 [total bars, horizons], log returns over the next bars, or what they are above the median of
            all symbols; NaN where they are not known.
        starts: symbol -> row of its first bar.
        lookback: rows of a window.
        memory: bars that a window depends on: lookback + the longest feature memory - 1.
        compared: whether labels are above others', so that those of a bar without others are not known.
    """

    features: Singles
    labels: Singles
    starts: Mapping[str, int]
    lookback: int
    memory: int
    compared: bool = False

    @classmethod
    def build(
        cls,
        bars: Bars,
        features: Sequence[Feature],
        *,
        lookback: int,
        horizons: Sequence[int],
        target: str = "return",
    ) -> Windows:
        """The windows of all symbols of the bars, in their order; ``target`` is what is labelled, return or excess."""
        columns = [Columns.of(frame) for frame in bars.frames.values()]
        ends = np.cumsum([0, *(len(part) for part in columns)])
        labels = [np.concatenate([labels_of(part.close, ahead) for part in columns]) for ahead in horizons]
        if target == "excess":
            pairs = zip(labels, horizons, strict=True)
            labels = [_excesses(bars, columns, returns, ahead) for returns, ahead in pairs]
        return cls(
            features=np.concatenate([compute(features, part) for part in columns]),
            labels=np.stack(labels, axis=1),
            starts=dict(zip(bars.symbols, ends.tolist(), strict=False)),
            lookback=lookback,
            memory=lookback + max_memory(features) - 1,
            compared=target == "excess",
        )

    def rows(self, decisions: Mapping[str, slice], *, inside: Mapping[str, Flags] | None = None) -> Rows:
        """Rows of the symbols' decision bars whose window is complete, in the order of symbols and time.

        Where labels are compared with others', those at which there are no others are left out.

        Args:
            decisions: symbol -> positions of its decision bars within the symbol's own bars.
            inside: symbol -> whether each of its bars may be taken, [bars]; all of them, if None.
        """
        parts = []
        for symbol, taken in decisions.items():
            positions = np.arange(max(taken.start, self.memory - 1), taken.stop)
            if inside is not None:
                positions = positions[inside[symbol][positions]]
            parts.append(positions + self.starts[symbol])
        rows: Rows = np.concatenate(parts).astype(np.int64) if parts else np.empty(0, dtype=np.int64)
        return rows[np.isfinite(self.labels[rows]).all(axis=1)] if self.compared else rows

    def gather(self, rows: Rows) -> torch.Tensor:
        """The windows that end at the rows, float32 [len(rows), lookback, features]; a copy."""
        taken = windows_of(self.features, self.lookback)[rows - (self.lookback - 1)]
        return torch.from_numpy(taken).view(len(rows), self.lookback, self.features.shape[1])


class WindowDataset(Dataset[Batch]):
    """The windows and labels of some rows; an item is a whole batch, so that a batch is one gather."""

    def __init__(self, windows: Windows, rows: Rows) -> None:
        self.windows = windows
        self.selected = rows
        self.labels = torch.from_numpy(windows.labels[rows])

    def __len__(self) -> int:
        return len(self.selected)

    def __getitem__(self, index: torch.Tensor) -> Batch:
        """Windows [batch, lookback, features] and labels [batch, horizons] of the positions."""
        return self.windows.gather(self.selected[index.numpy()]), self.labels[index]


class BatchIndex(Sampler[torch.Tensor]):
    """Positions of each batch in turn: in order, or shuffled anew each epoch by a generator of its own."""

    def __init__(self, count: int, *, batch: int, seed: int | None) -> None:
        self._count = count
        self._batch = batch
        self._generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-self._count // self._batch)

    def __iter__(self) -> Iterator[torch.Tensor]:
        if self._generator is None:
            order = torch.arange(self._count)
        else:
            order = torch.randperm(self._count, generator=self._generator)
        yield from torch.split(order, self._batch)


def batches_of(windows: Windows, rows: Rows, *, batch: int, seed: int | None = None) -> DataLoader[Batch]:
    """Batches of (windows [batch, lookback, features], labels [batch, horizons]); the last one may be smaller.

    Args:
        windows: the windows to draw from.
        rows: the decision bars to draw.
        batch: windows of a batch.
        seed: shuffle anew at each pass, from this seed; None keeps the rows' order.
    """
    dataset = WindowDataset(windows, rows)
    return DataLoader(dataset, batch_size=None, sampler=BatchIndex(len(dataset), batch=batch, seed=seed))

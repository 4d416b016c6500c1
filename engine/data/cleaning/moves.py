"""How much each symbol usually moves from bar to bar, which nothing that is odd itself may distort."""

from __future__ import annotations

import itertools

import numpy as np

from engine.data.cleaning.stack import Stack

_BLOCK = 64
_ENOUGH = 16

# What a normal distribution's standard deviation is to its median absolute deviation.
_TO_DEVIATION = 1.4826


def usual_moves(stack: Stack, closes: np.ndarray) -> np.ndarray:
    """Robust standard deviation of each bar's log return: ``[bars]``, infinite where a symbol has too few bars.

    The median of the absolute close-to-close moves that are not zero, over blocks of 64 bars: the larger one of the
    bar's own block and of the symbol's median block, so that neither a calm history makes a storm look odd, nor the
    other way round.

    Args:
        closes: the logarithms of the closes, ``[bars]``.
    """
    moves = np.full(len(closes), np.nan)
    moves[1:] = np.where(stack.joined, np.abs(np.diff(closes)), np.nan)
    moves[moves == 0.0] = np.nan
    lengths = np.diff(stack.starts)
    blocks = -(-lengths // _BLOCK)
    first_block = np.concatenate([[0], np.cumsum(blocks)])
    place = np.arange(len(moves)) + (first_block[:-1] * _BLOCK - stack.starts[:-1])[stack.owner]
    table = np.full((int(first_block[-1]), _BLOCK), np.nan)
    table.ravel()[place] = moves
    table.sort(axis=1)
    counts = _BLOCK - np.isnan(table).sum(axis=1)
    medians = table[np.arange(len(table)), np.maximum(counts - 1, 0) // 2]
    medians[counts < _ENOUGH] = np.nan
    usual = np.full(len(lengths), np.inf)
    for symbol, (start, end) in enumerate(itertools.pairwise(first_block.tolist())):
        own = medians[start:end]
        own = own[~np.isnan(own)]
        if len(own):
            usual[symbol] = np.median(own)
    of_block = np.fmax(np.repeat(usual, blocks), medians)
    return np.asarray(of_block[place // _BLOCK] * _TO_DEVIATION)

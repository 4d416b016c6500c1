"""Regression trees as LightGBM writes them, read with suspicion and followed without it.

LightGBM trusts the text it reads: a damaged one can end the process. So its text is checked line by line here, and the
trees are followed by a few gathers; the library itself is needed for fitting only.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Singles = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

_HEADER = {"version": "v4", "num_class": "1", "num_tree_per_iteration": "1"}
_PLAIN_SPLITS = {"0", "2"}  # decision_type: no categories, no missing values; 2 says where they would have gone


@dataclass(frozen=True)
class Tree:
    """One tree: at node k, go left where input ``features[k]`` <= ``thresholds[k]``, else right.

    A child >= 0 is a node, a greater one than its parent; a child < 0 is the leaf ~child.
    """

    features: tuple[int, ...]
    thresholds: tuple[float, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def depth(self) -> int:
        """Decisions on the longest way to a leaf."""
        depths = [0] * max(1, len(self.features))
        deepest = 0
        for node, children in enumerate(zip(self.left, self.right, strict=True)):
            deepest = max(deepest, depths[node] + 1)
            for child in children:
                if child >= 0:
                    depths[child] = depths[node] + 1
        return deepest


def parse_trees(text: bytes, *, inputs: int, most_trees: int, most_leaves: int) -> tuple[Tree, ...]:
    """The trees of a LightGBM model's text, checked to be whole and to fit a model of that size.

    Args:
        text: of ``Booster.model_to_string``, of one regression.
        inputs: numbers of a flattened window.
        most_trees, most_leaves: what the run file allows.

    Raises:
        ValueError: it is truncated, edited, or of another model.
    """
    head, *blocks = re.split(r"^Tree=(?=[0-9]+\n)", text.decode("ascii"), flags=re.MULTILINE)
    values = _values(head)
    for name, expected in {**_HEADER, "max_feature_idx": str(inputs - 1)}.items():
        if values.get(name) != expected:
            raise ValueError(f"expected {name} {expected}, found {values.get(name)}")
    if not blocks or "\nend of trees\n" not in blocks[-1]:
        raise ValueError("its trees are cut short")
    if len(blocks) > most_trees or len(values.get("tree_sizes", "").split()) != len(blocks):
        raise ValueError(f"expected at most {most_trees} trees, as many as it has sizes, found {len(blocks)}")
    trees = []
    for position, block in enumerate(blocks):
        number, rest = block.split("\n", 1)
        if number != str(position):
            raise ValueError(f"expected tree {position}, found {number}")
        try:
            trees.append(_tree(_values(rest.split("\nend of trees\n")[0]), inputs=inputs, most_leaves=most_leaves))
        except KeyError as error:
            raise ValueError(f"tree {position} lacks {error.args[0]}") from None
        except ValueError as error:
            raise ValueError(f"tree {position}: {error}") from None
    return tuple(trees)


def _values(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _tree(values: dict[str, str], *, inputs: int, most_leaves: int) -> Tree:
    leaves = int(values["num_leaves"])
    if not 1 <= leaves <= most_leaves:
        raise ValueError(f"expected 1 to {most_leaves} leaves, found {leaves}")
    if values["num_cat"] != "0" or values["is_linear"] != "0":
        raise ValueError("expected splits at thresholds and constant leaves")
    if not set(values["decision_type"].split()) <= _PLAIN_SPLITS:
        raise ValueError(f"expected plain splits, found {values['decision_type'][:40]}")
    tree = Tree(
        features=_integers(values["split_feature"], leaves - 1),
        thresholds=_numbers(values["threshold"], leaves - 1),
        left=_integers(values["left_child"], leaves - 1),
        right=_integers(values["right_child"], leaves - 1),
        values=_numbers(values["leaf_value"], leaves),
    )
    if not all(0 <= feature < inputs for feature in tree.features):
        raise ValueError(f"expected inputs 0 to {inputs - 1}")
    # Each node but the first, and each leaf, hangs from exactly one node before it: so every way ends at a leaf.
    if sorted([*tree.left, *tree.right]) != [*range(-leaves, 0), *range(1, leaves - 1)] and leaves > 1:
        raise ValueError("its nodes do not form a tree")
    if any(0 <= child <= node for side in (tree.left, tree.right) for node, child in enumerate(side)):
        raise ValueError("its nodes do not form a tree")
    return tree


def _integers(text: str, count: int) -> tuple[int, ...]:
    found = tuple(int(word) for word in text.split())
    if len(found) != count:
        raise ValueError(f"expected {count} whole numbers, found {len(found)}")
    return found


def _numbers(text: str, count: int) -> tuple[float, ...]:
    found = tuple(float(word) for word in text.split())
    if len(found) != count or not all(math.isfinite(number) for number in found):
        raise ValueError(f"expected {count} finite numbers, found {text[:40]!r}")
    return found


class Forest:
    """Several sums of trees, followed together.

    Args:
        sums: the trees of each sum.

    Attributes:
        numbers: thresholds and leaves of all trees.
    """

    def __init__(self, sums: Sequence[Sequence[Tree]]) -> None:
        trees = [tree for several in sums for tree in several]
        self.numbers = sum(len(tree.thresholds) + len(tree.values) for tree in trees)
        self._ends = [0]
        for several in sums:
            self._ends.append(self._ends[-1] + len(several))
        self._steps = max((tree.depth for tree in trees), default=0)
        features: list[int] = []
        thresholds: list[float] = []
        # Right after left, so that a decision is an addition; a leaf is a node that leads to itself.
        children: list[int] = []
        values: list[float] = []
        roots: list[int] = []
        for tree in trees:
            first, nodes = len(features), len(tree.features)
            roots.append(first)
            pairs = (child for pair in zip(tree.left, tree.right, strict=True) for child in pair)
            children += [first + (child if child >= 0 else nodes + ~child) for child in pairs]
            for leaf in range(len(tree.values)):
                children += [first + nodes + leaf] * 2
            features += [*tree.features, *([0] * len(tree.values))]
            thresholds += [*tree.thresholds, *([0.0] * len(tree.values))]
            values += [*([0.0] * nodes), *tree.values]
        self._roots = np.array(roots, dtype=np.int64)
        self._features = np.array(features, dtype=np.int64)
        self._thresholds = np.array(thresholds, dtype=np.float64)
        self._children = np.array(children, dtype=np.int64)
        self._values = np.array(values, dtype=np.float64)

    def __call__(self, inputs: Singles) -> Floats:
        """Inputs [n, inputs] -> the sums [n, sums]."""
        count, width = inputs.shape
        flat = inputs.astype(np.float64).reshape(-1)
        rows = np.arange(count)[:, None] * width
        nodes = np.repeat(self._roots[None, :], count, axis=0)  # [n, trees]
        for _ in range(self._steps):
            above = flat.take(self._features.take(nodes) + rows) > self._thresholds.take(nodes)
            nodes = self._children.take(2 * nodes + above)
        found = self._values.take(nodes)
        parts = [found[:, start:end].sum(axis=1) for start, end in zip(self._ends, self._ends[1:], strict=False)]
        return np.stack(parts, axis=1)

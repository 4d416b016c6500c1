"""Windows: views of the right bars, labels that look exactly one horizon ahead, batches by index."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from synthetic import make_bars, make_config, make_frame, make_windows

from models.features import Columns, compute, parse_features
from models.windows import BatchIndex, batches_of, labels_of, windows_of


def test_a_window_ends_at_its_row_and_copies_nothing():
    features = np.arange(20, dtype=np.float32).reshape(10, 2)
    view = windows_of(features, 3)
    assert view.shape == (8, 6)
    assert view[4].tolist() == features[4:7].ravel().tolist()
    assert np.shares_memory(view, features)


def test_labels_are_log_returns_over_the_next_bars():
    labels = labels_of(np.array([1.0, 2.0, 4.0, 2.0]), 2)
    np.testing.assert_allclose(labels, [np.log(4), 0.0, np.nan, np.nan], rtol=1e-6)
    assert labels.dtype == np.float32
    assert np.isnan(labels_of(np.array([1.0, 2.0]), 5)).all()


def test_symbols_lie_end_to_end_and_no_window_crosses_them():
    bars, config = make_bars(), make_config()
    windows, rows = make_windows(bars, config)
    features = parse_features(config.model.features, close_only=False)
    assert windows.starts == {"AAA": 0, "BBB": 160}
    assert windows.memory == 5 + 6 - 1
    assert windows.labels.shape == (290, 1)
    # A decision bar of BBB, by its own bars alone.
    row = int(rows["test"][-1])
    own = compute(features, Columns.of(bars.frames["BBB"]))
    expected = own[row - 160 - 4 : row - 160 + 1]
    assert windows.gather(np.array([row]))[0].numpy().tobytes() == expected.tobytes()
    assert np.isfinite(windows.gather(np.concatenate(list(rows.values()))).numpy()).all()
    assert np.isfinite(windows.labels[np.concatenate(list(rows.values()))]).all()


def test_rows_leave_out_bars_without_a_full_window():
    bars = make_bars({"AAA": make_frame(20)})
    windows, _ = make_windows(bars, make_config())
    assert windows.rows({"AAA": slice(0, 15)}).tolist() == [9, 10, 11, 12, 13, 14]
    assert windows.rows({"AAA": slice(3, 3)}).tolist() == []
    assert windows.rows({}).tolist() == []


def test_batches_cover_every_row_once_and_shuffle_by_their_own_seed():
    windows, rows = make_windows(make_bars(), make_config())
    train = rows["train"]
    for seed in (None, 5):
        batches = list(batches_of(windows, train, batch=32, seed=seed))
        assert [len(labels) for _, labels in batches[:-1]] == [32] * (len(batches) - 1)
        labels = torch.cat([labels for _, labels in batches])
        assert sorted(labels.tolist()) == sorted(windows.labels[train].tolist())
        assert (labels.tolist() == windows.labels[train].tolist()) == (seed is None)
    torch.manual_seed(0)
    first = [index.tolist() for index in BatchIndex(50, batch=16, seed=5)]
    torch.manual_seed(1)
    again = BatchIndex(50, batch=16, seed=5)
    assert [index.tolist() for index in again] == first
    assert [index.tolist() for index in again] != first  # the next epoch has another order
    assert len(again) == len(first) == 4


def test_a_batch_holds_the_windows_of_its_labels():
    windows, rows = make_windows(make_bars(), make_config())
    taken, labels = next(iter(batches_of(windows, rows["train"], batch=8)))
    assert taken.shape == (8, 5, 8)
    assert torch.equal(taken, windows.gather(rows["train"][:8]))
    assert labels[:, 0].tolist() == pytest.approx(windows.labels[rows["train"][:8], 0].tolist())

"""The causality checks catch what they are there for: leaks planted in features, networks, indicators, strategies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import backtrader as bt
import numpy as np
import pandas as pd
import pytest
import torch
from harness import Subject, assert_causal, assert_same
from subjects import (
    daily_bars,
    load,
    of_columns,
    of_indicator,
    of_strategy,
    of_strategy_on_stock_loop,
    one_symbol,
    tiny_forecaster,
)
from torch import nn

from engine.data.bars import Bars
from engine.errors import LookAheadError
from models.features import Columns, compute, parse_features
from models.networks import Network

BARS = daily_bars()
WINDOW = 10
NAMES_THE_BAR = r"first differs at bar \d+ \(2020-\d\d-\d\d 21:00:00\+00:00\)"


# --- features --------------------------------------------------------------------------------------------------------


def closes(function: Callable[[pd.Series], Any]) -> Subject:
    return of_columns(lambda columns: np.asarray(function(pd.Series(columns.close)), dtype=np.float64))


def honest_mean(close: pd.Series) -> np.ndarray:
    values = close.to_numpy()
    total = sum(values[k : len(values) - WINDOW + 1 + k] for k in range(WINDOW))
    return np.concatenate([np.full(WINDOW - 1, np.nan), total / WINDOW])


LEAKING_FEATURES = {
    "the next bar": lambda close: np.log(close.shift(-1) / close),
    "a centred window": lambda close: close.rolling(WINDOW, center=True).mean(),
    "the mean and deviation of the whole series": lambda close: (close - close.mean()) / close.std(),
    "filling backwards": lambda close: close.where(close > close.shift(1)).bfill(),
    "a rank within the whole series": lambda close: close.rank(pct=True),
}


def test_an_honest_feature_passes():
    assert_causal(closes(honest_mean), BARS, warmup=WINDOW, memory=WINDOW)


@pytest.mark.parametrize("leak", LEAKING_FEATURES)
def test_a_feature_that_sees_the_future_is_caught(leak: str):
    with pytest.raises(AssertionError, match=f"later bars perturbed .*{NAMES_THE_BAR}"):
        assert_causal(closes(LEAKING_FEATURES[leak]), BARS, warmup=WINDOW, memory=WINDOW)


ACCUMULATING_FEATURES = {
    "pandas' rolling deviation": lambda close: close.rolling(WINDOW).std(),
    "pandas' rolling mean": lambda close: close.rolling(WINDOW).mean(),
    "a difference of cumulative sums": lambda close: (close.cumsum() - close.cumsum().shift(WINDOW)) / WINDOW,
    "exponential smoothing": lambda close: close.ewm(span=WINDOW).mean(),
}


@pytest.mark.parametrize("leak", ACCUMULATING_FEATURES)
def test_a_feature_that_remembers_where_it_started_is_caught(leak: str):
    """They see no future, but in their last bits they depend on more bars than they declare."""
    with pytest.raises(AssertionError, match=f"all but the last 10 bars cut off.*{NAMES_THE_BAR}"):
        assert_causal(closes(ACCUMULATING_FEATURES[leak]), BARS, warmup=WINDOW, memory=WINDOW)


def test_a_feature_that_declares_less_memory_than_it_uses_is_caught():
    (feature,) = parse_features(["distance_from_mean_10"], close_only=False)
    with pytest.raises(AssertionError, match=NAMES_THE_BAR):
        assert_causal(of_columns(lambda columns: compute((feature,), columns)), BARS, warmup=WINDOW, memory=WINDOW - 1)


# --- networks --------------------------------------------------------------------------------------------------------


class OverTheSeries(nn.Module):
    """Takes the windows of a batch for one series: the mistake that the bodies below share."""

    size = 5

    def series(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, -1]  # [bars, features]


class SamePaddedConvolution(OverTheSeries):
    """Each bar's output is read from the middle of a kernel that reaches one bar ahead."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(features, self.size, kernel_size=3, padding="same")

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.convolution(self.series(windows).T).T


class BothWays(OverTheSeries):
    """A bidirectional LSTM whose backward half comes from the end of the series."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(features, 3, bidirectional=True)
        self.project = nn.Linear(6, self.size)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(self.series(windows))
        return self.project(states)


class BatchStatistics(OverTheSeries):
    """Batch normalisation that was left in training mode: each bar is scaled by the others of its batch."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(features, track_running_stats=False)
        self.project = nn.Linear(features, self.size)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.project(self.norm(self.series(windows)))


class Carried(OverTheSeries):
    """A state that is carried from bar to bar: no future, but no finite memory either."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(features, self.size)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        states, _ = self.recurrent(self.series(windows))
        return states


class WithinTheWindow(SamePaddedConvolution):
    """The same convolution inside the window, whose padding the last bar may see: nothing of it lies ahead."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.convolution(windows.transpose(1, 2))[:, :, -1]


def with_body(body: type[nn.Module]) -> tuple[Subject, int]:
    """The forecaster around a network with this body, and its memory."""

    def change(network: Network) -> None:
        network.body = body(len(network.scaling.mean))

    forecaster = tiny_forecaster(change=change)
    return of_columns(forecaster.forecast), forecaster.memory


def test_a_convolution_within_the_window_passes():
    subject, memory = with_body(WithinTheWindow)
    assert_causal(subject, BARS, warmup=memory, memory=memory)


@pytest.mark.parametrize("body", [SamePaddedConvolution, BothWays, BatchStatistics])
def test_a_network_that_sees_ahead_is_caught(body: type[nn.Module]):
    subject, memory = with_body(body)
    with pytest.raises(AssertionError, match=f"later bars perturbed .*{NAMES_THE_BAR}"):
        assert_causal(subject, BARS, warmup=memory, memory=memory)


def test_a_network_that_carries_its_state_along_is_caught():
    subject, memory = with_body(Carried)
    with pytest.raises(AssertionError, match=f"the last {memory} .*{NAMES_THE_BAR}"):
        assert_causal(subject, BARS, warmup=memory, memory=memory)


def test_a_forecaster_of_varying_batches_is_caught():
    """One batch over the whole series rounds differently from a batch over a part of it."""
    forecaster = tiny_forecaster(hidden=64)
    features = forecaster.bundle.features

    def in_one_batch(columns: Columns) -> np.ndarray:
        known = np.full((len(columns), 3), np.nan)
        rows = torch.from_numpy(compute(features, columns))
        first = forecaster.memory - 1
        if len(columns) > first:
            windows = rows.unfold(0, 6, 1).transpose(1, 2)[first - 5 :].contiguous()
            with torch.inference_mode():
                known[first:] = forecaster.bundle.network.forecast(windows)
        return known

    with pytest.raises(AssertionError, match=NAMES_THE_BAR):
        assert_causal(of_columns(in_one_batch), BARS, warmup=forecaster.memory, memory=forecaster.memory)


# --- indicators ------------------------------------------------------------------------------------------------------


class Honest(bt.Indicator):
    """The mean of two closes, in both ways."""

    lines = ("value",)

    def __init__(self) -> None:
        self.addminperiod(2)

    def next(self) -> None:
        self.lines.value[0] = (self.data.close[0] + self.data.close[-1]) / 2.0

    def once(self, start: int, end: int) -> None:
        close, values = self.data.close.array, self.lines.value.array
        for i in range(start, end):
            values[i] = (close[i] + close[i - 1]) / 2.0


class OnceReadsAhead(Honest):
    """The arrays of ``once`` hold the whole history, and it takes a bar too many."""

    def once(self, start: int, end: int) -> None:
        close, values = self.data.close.array, self.lines.value.array
        for i in range(start, end):
            values[i] = (close[i] + close[min(i + 1, end - 1)]) / 2.0


class OnceDiffers(Honest):
    """Sees no future, but ``once`` and ``next`` are two formulas that differ in the last bits."""

    def once(self, start: int, end: int) -> None:
        close, values = self.data.close.array, self.lines.value.array
        for i in range(start, end):
            values[i] = close[i] / 3.0 + close[i - 1] / 3.0 + (close[i] + close[i - 1]) / 6.0


def indicator(made: type[bt.Indicator], **run: Any) -> Subject:
    return of_indicator(made, params={}, **run)


def test_an_honest_indicator_passes():
    assert_causal(indicator(Honest), BARS, warmup=2, memory=2)
    bar_by_bar = indicator(Honest, lean=False, runonce=False, preload=False)
    assert_same(indicator(Honest)(BARS), bar_by_bar(BARS), check="bar by bar")


def test_an_indicator_whose_once_reads_ahead_is_caught():
    with pytest.raises(AssertionError, match=f"later bars perturbed .*{NAMES_THE_BAR}"):
        assert_causal(indicator(OnceReadsAhead), BARS, warmup=2, memory=2)


@pytest.mark.parametrize("made", [OnceReadsAhead, OnceDiffers])
def test_an_indicator_whose_once_and_next_differ_is_caught(made: type[bt.Indicator]):
    bar_by_bar = indicator(made, lean=False, runonce=False, preload=False)
    with pytest.raises(AssertionError, match=f"bar by bar: {NAMES_THE_BAR}"):
        assert_same(indicator(made)(BARS), bar_by_bar(BARS), check="bar by bar")


# --- strategies ------------------------------------------------------------------------------------------------------


class Switching(bt.Strategy):
    """Holds a share while it expects a rise; what it expects is up to the subclass."""

    def rises(self) -> bool:
        return self.data.close[0] > self.data.close[-1] if len(self.data) > 1 else False

    def next(self) -> None:
        if self.rises() and not self.position:
            self.buy(size=1)
        elif not self.rises() and self.position:
            self.close()


class CapturedArray(Switching):
    """Keeps the preloaded array before the run begins and its lines are guarded."""

    def __init__(self) -> None:
        self.captured = self.data.close.array

    def rises(self) -> bool:
        today = len(self.data) - 1
        return today + 1 < len(self.captured) and self.captured[today + 1] > self.captured[today]


class CapturedFromCerebro(CapturedArray):
    """The same through the feed that Cerebro holds."""

    def __init__(self) -> None:
        pass

    def start(self) -> None:
        self.captured = self.cerebro.datas[0].lines.close.array


class Copied(CapturedArray):
    """Takes a copy of the whole history when it is made."""

    def __init__(self) -> None:
        self.captured = list(self.data.lines.close.array)


class LooksPast(Switching):
    """Asks for tomorrow's close by its index."""

    def rises(self) -> bool:
        return bool(self.data.close[1] > self.data.close[0])


class LooksPastQuietly(Switching):
    """The same, prepared for an error."""

    def rises(self) -> bool:
        try:
            return bool(self.data.close[1] > self.data.close[0])
        except IndexError:
            return False


class LooksIntoTheFeed(Switching):
    """Reads the feed's array while the run goes on."""

    def rises(self) -> bool:
        close = self.cerebro.datas[0].close.array
        return len(close) > len(self.data) and close[len(self.data)] > self.data.close[0]


class LooksUnderTheGuard(Switching):
    """Takes the preloaded values from where the guarded line of Cerebro's feed keeps them."""

    def rises(self) -> bool:
        values, today = self.cerebro.datas[0].lines.close._values, len(self.data) - 1
        return today + 1 < len(values) and values[today + 1] > values[today]


def strategy(made: type[bt.Strategy]) -> Subject:
    return of_strategy(lambda: (made, {}))


ONE = one_symbol(BARS)


def test_an_honest_strategy_passes():
    assert_causal(strategy(Switching), ONE)


def test_a_strategy_that_looks_under_the_guards_is_caught():
    with pytest.raises(AssertionError, match=f"later bars perturbed .*{NAMES_THE_BAR}"):
        assert_causal(strategy(LooksUnderTheGuard), ONE)


def test_a_strategy_that_asks_for_tomorrow_is_stopped():
    with pytest.raises(LookAheadError, match=r"LooksPast at bar 1 .*1 bar\(s\) into the future"):
        strategy(LooksPast)(ONE)


@pytest.mark.parametrize("made", [CapturedArray, CapturedFromCerebro, Copied, LooksPastQuietly, LooksIntoTheFeed])
def test_what_is_hidden_from_a_strategy_stays_hidden(made: type[bt.Strategy]):
    """In nextbar's loop there is no tomorrow to be found; in backtrader's own there is, and the check says so."""
    assert_causal(strategy(made), ONE)
    with pytest.raises(AssertionError, match=f"later bars perturbed .*{NAMES_THE_BAR}"):
        assert_causal(of_strategy_on_stock_loop(lambda: (made, {})), ONE)


STRATEGY_WITH_A_FRAME = """
from pathlib import Path

import backtrader as bt
import pandas as pd

CLOSES = pd.read_csv(Path(__file__).with_name("closes.csv"), index_col=0)["close"]
NEXT = CLOSES.shift({shift})


class Shifted(bt.Strategy):
    def next(self):
        today = len(self.data) - 1
        if NEXT.iloc[today] > CLOSES.iloc[today] and not self.position:
            self.buy(size=1)
        elif NEXT.iloc[today] < CLOSES.iloc[today] and self.position:
            self.close()
"""


def from_file(folder: Path, *, shift: int) -> Subject:
    """A strategy of a user's own file, which reads the history from another file for itself."""
    (folder / "mine.py").write_text(STRATEGY_WITH_A_FRAME.format(shift=shift))

    def subject(bars: Bars) -> Mapping[int, tuple[object, ...]]:
        bars.frames["AAA"].reset_index()[["close"]].to_csv(folder / "closes.csv")
        return of_strategy(lambda: load("./mine.py:Shifted", None, folder))(bars)

    return subject


def test_a_strategy_that_shifts_a_frame_of_its_own_into_the_future_is_caught(tmp_path: Path):
    assert_causal(from_file(tmp_path, shift=1), ONE)
    with pytest.raises(AssertionError, match=f"later bars perturbed .*{NAMES_THE_BAR}"):
        assert_causal(from_file(tmp_path, shift=-1), ONE)

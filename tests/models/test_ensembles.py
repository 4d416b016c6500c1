"""Ensembles: what combines forecasts, how its weights are found, and what they must not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import make_bars, make_config, make_frame

from engine.config import RunConfig
from engine.errors import BundleError, ConfigError
from models.bundle import Bundle
from models.bundle_files import load_bundle, write_bundle
from models.ensemble import Combined, OnlineCombined, ensemble_of
from models.features import Columns, Floats
from models.fitting import ensembles
from models.fitting.bundles import fit_bundle
from models.fitting.ensembles import Forecasts, inverse_error_weights, joined, out_of_fold, stacked_weights
from models.forecaster import Forecaster, predictor_of
from models.predictor import Predictor

MEMBERS = [
    {"kind": "mean"},
    {"kind": "last_return"},
    {"kind": "ridge", "features": ["log_return"], "lookback": 3, "alpha": 1.0},
    {"kind": "lstm", "features": ["log_return", "range"], "lookback": 4, "hidden": 3, "layers": 1},
]


def ensemble(combine: str, **more: object) -> RunConfig:
    config = make_config()
    values = config.model_dump() | {"model": {"kind": "ensemble", "combine": combine, "members": MEMBERS, **more}}
    return RunConfig.model_validate(values)


class Of(Predictor):
    """Forecasts that are a function of the last bars' closes; counts the bars that it is asked for."""

    def __init__(self, factor: float, *, memory: int = 1) -> None:
        self.memory, self.factor, self.asked = memory, factor, 0

    def series(self, columns: Columns) -> Floats:
        rows = np.full((len(columns), 3), np.nan)
        now = np.log(columns.close[self.memory - 1 :] / columns.close[: len(columns) - self.memory + 1])
        self.asked += len(now)
        for place, shift in enumerate((0.0, -0.01, 0.02)):
            rows[self.memory - 1 :, place] = self.factor * (now + 0.01) + shift * (1.0 + self.factor)
        return rows


def test_fixed_weights_combine_forecasts_and_quantiles() -> None:
    columns = Columns.of(make_frame(20))
    members = [Of(1.0, memory=3), Of(2.0, memory=5)]
    first, second = (member.series(columns)[4:] for member in members)
    combined = Combined(members, [0.25, 0.75])
    assert combined.memory == 5
    found = combined.series(columns)
    assert np.isnan(found[:4]).all()
    # Weights that sum to one average all three quantiles.
    np.testing.assert_allclose(found[4:], 0.25 * first + 0.75 * second, rtol=1e-12)
    latest = combined.latest_of([columns[10:15], columns[:5]])
    assert [row for row, _ in latest] == [tuple(found[14].tolist()), tuple(found[4].tolist())]


def test_weights_below_one_shrink_the_forecast_and_not_the_interval() -> None:
    columns = Columns.of(make_frame(20))
    member = Of(1.0)
    alone = member.series(columns)
    for weight in (0.5, 0.0):
        found = Combined([member, member], [weight, 0.0]).series(columns)
        np.testing.assert_allclose(found[:, 0], weight * alone[:, 0])
        np.testing.assert_allclose(found[:, 2] - found[:, 1], alone[:, 2] - alone[:, 1])


def online_by_hand(members: list[Predictor], columns: Columns, *, bar: int, horizon: int, window: int, rate: float):
    """The formula of the docstring, with no thought for speed or for bits."""
    made = [member.series(columns) for member in members]
    known = range(bar - horizon - window + 1, bar - horizon + 1)
    came = {s: np.log(columns.close[s + horizon] / columns.close[s]) for s in known}
    losses = np.array([sum((came[s] - own[s, 0]) ** 2 for s in known) for own in made])
    weights = np.exp(-rate * losses / (losses.sum() / (len(members) * window)))
    weights /= weights.sum()
    return sum(weight * own[bar] for weight, own in zip(weights, made, strict=True))


@pytest.mark.parametrize(("horizon", "window", "rate"), [(1, 5, 1.0), (3, 4, 0.5), (2, 1, 20.0)])
def test_online_weights_follow_the_errors_that_are_known(horizon: int, window: int, rate: float) -> None:
    columns = Columns.of(make_frame(40))
    members: list[Predictor] = [Of(0.1), Of(-1.0, memory=4), Of(3.0, memory=2)]
    online = OnlineCombined(members, horizon=horizon, longest=horizon, window=window, rate=rate)
    assert online.memory == 4 + window + horizon - 1
    found = online.series(columns)
    for bar in (online.memory - 1, 25, 39):
        asked = {"bar": bar, "horizon": horizon, "window": window, "rate": rate}
        np.testing.assert_allclose(found[bar], online_by_hand(members, columns, **asked), rtol=1e-9)
    assert np.isnan(found[: online.memory - 1]).all()


def test_an_outcome_that_is_not_known_yet_changes_no_weight() -> None:
    """A forecast's weight at a bar knows outcomes up to it: those that end at a later bar are not looked at."""
    frame = make_frame(60)
    online = OnlineCombined([Of(0.0), Of(1.0)], horizon=3, longest=3, window=5, rate=5.0)
    before = online.series(Columns.of(frame))
    frame.iloc[40:] *= 2.0
    after = online.series(Columns.of(frame))
    assert before[:40].tobytes() == after[:40].tobytes()
    assert before[40:].tobytes() != after[40:].tobytes()


def test_the_better_member_gets_the_weight_and_a_higher_rate_makes_it_sharper() -> None:
    returns = np.tile([0.02, -0.02], 30)
    columns = Columns.of(make_frame(returns=returns))
    repeats, reverses = Of(1.0, memory=2), Of(-1.0, memory=2)
    share = []
    for rate in (0.01, 0.1, 100.0):
        online = OnlineCombined([repeats, reverses], horizon=1, longest=1, window=10, rate=rate)
        row, good = online.series(columns)[-1], reverses.series(columns)[-1]
        bad = repeats.series(columns)[-1]
        share.append((row[0] - bad[0]) / (good[0] - bad[0]))
    assert 0.5 < share[0] < share[1] < share[2]
    assert share[2] == pytest.approx(1.0)


def test_members_without_errors_are_weighed_alike() -> None:
    columns = Columns.of(make_frame(returns=np.zeros(30)))

    class Flat(Of):
        def series(self, columns: Columns) -> Floats:
            return np.zeros((len(columns), 3))

    online = OnlineCombined([Flat(1.0), Flat(1.0)], horizon=1, longest=1, window=4, rate=1.0)
    assert (online.series(columns)[online.memory - 1 :] == 0.0).all()


def test_a_latest_forecast_asks_members_for_no_more_than_the_window() -> None:
    members = [Of(1.0), Of(0.5, memory=9)]
    online = OnlineCombined(members, horizon=2, longest=5, window=6, rate=1.0)
    online.latest_of([Columns.of(make_frame(online.memory))])
    assert [member.asked for member in members] == [1 + 6 + 2 - 1] * 2


def test_inverse_errors() -> None:
    labels = np.zeros((4, 1))
    values = np.stack([np.full((4, 1), 0.01), np.full((4, 1), 0.02)], axis=1)  # mean squared errors 1 : 4
    times = np.arange(4)
    forecasts = Forecasts(times=times, values=values, labels=labels, horizons=(1,))
    np.testing.assert_allclose(inverse_error_weights(forecasts)["1"], (0.8, 0.2))
    exact = Forecasts(times=times, values=values * np.array([0.0, 1.0])[:, None], labels=labels, horizons=(1,))
    assert inverse_error_weights(exact) == {"1": (1.0, 0.0)}


def test_stacking_is_non_negative_least_squares() -> None:
    random = np.random.default_rng(1)
    signal = random.normal(0.0, 0.01, (500, 2))
    values = np.stack([signal[:, 0], signal[:, 1], -signal[:, 1]], axis=1)[:, :, None]
    labels = (0.3 * signal[:, 0] - 0.7 * signal[:, 1] + random.normal(0.0, 1e-5, 500))[:, None]
    made = stacked_weights(Forecasts(times=np.arange(500), values=values, labels=labels, horizons=(4,)))
    np.testing.assert_allclose(made["4"], (0.3, 0.0, 0.7), atol=0.01)
    nothing = Forecasts(times=np.arange(500), values=0.0 * values, labels=labels, horizons=(4,))
    assert stacked_weights(nothing) == {"4": (0.0, 0.0, 0.0)}


# --- fitted ----------------------------------------------------------------------------------------------------------


def changed_from(day: str) -> dict[str, pd.DataFrame]:
    frames = {symbol: frame.copy() for symbol, frame in make_bars().frames.items()}
    for frame in frames.values():
        late = frame.index >= day
        frame.loc[late, ["open", "high", "low", "close"]] *= np.linspace(1.0, 3.0, late.sum())[:, None]
    return frames


def test_members_are_fitted_each_by_itself(tmp_path: Path) -> None:
    config = ensemble("mean")
    fitted = fit_bundle(config, make_bars(), root=tmp_path)
    assert fitted.network is None
    assert fitted.record.memory == max(member.record.memory for member in fitted.members)
    forecaster, columns = Forecaster(fitted), Columns.of(make_frame(50))
    alone = [
        Forecaster(fit_bundle(config.model_copy(update={"model": member}), make_bars(), root=tmp_path))
        for member in config.model.members
    ]
    expected = np.mean([single.forecast(columns) for single in alone], axis=0)
    known = ~np.isnan(expected).any(axis=1)
    np.testing.assert_allclose(forecaster.forecast(columns)[known], expected[known], rtol=1e-12, atol=1e-15)
    assert fitted.parameters == sum(single.bundle.parameters for single in alone)


def test_weights_of_a_weighted_one_are_of_the_validation_span(tmp_path: Path) -> None:
    config, bars = ensemble("weighted", horizon=1, more_horizons=[4]), make_bars()
    fitted = fit_bundle(config, bars, root=tmp_path)
    start, end = (str(day) for day in config.spans.get("validate"))
    for at, horizon in enumerate((1, 4)):
        errors = []
        for member in fitted.members:
            squares = []
            for frame in bars.frames.values():
                made = predictor_of(member, at).series(Columns.of(frame))[:, 0]
                label = np.log(frame["close"].shift(-horizon) / frame["close"])
                # The last labels that end inside the span, of the longest horizon.
                squares += ((label - made) ** 2).loc[start : f"{end} 23:59"].iloc[:-4].tolist()
            errors.append(np.mean(squares))
        inverse = 1.0 / np.array(errors)
        np.testing.assert_allclose(fitted.record.combination[str(horizon)], inverse / inverse.sum(), rtol=1e-4)
    # What comes later moves nothing.
    later = fit_bundle(config, make_bars(changed_from("2020-06-15")), root=tmp_path)
    assert later.record.combination == fitted.record.combination


def test_no_member_forecasts_a_bar_that_it_was_fitted_or_chosen_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, bars = ensemble("stacked", horizon=1, more_horizons=[3]), make_bars()
    seen: list[RunConfig] = []

    def fit(inner: RunConfig, given: object, **more: object) -> Bundle:
        seen.append(inner)
        return fit_bundle(inner, given, **more)

    monkeypatch.setattr(ensembles, "fit_bundle", fit)
    folds = list(out_of_fold(config, config.model, bars, root=tmp_path))
    assert len(folds) == 4
    last = None
    for number, (spans, forecasts) in enumerate(folds):
        fitted = seen[len(MEMBERS) * number :][: len(MEMBERS)]
        assert [inner.model.kind for inner in fitted] == [member["kind"] for member in MEMBERS]
        assert all(inner.spans == spans for inner in fitted)
        assert np.isfinite(forecasts.values).all()
        times = pd.DatetimeIndex(forecasts.times, tz="UTC")
        # Labels end inside their spans: those of what was fitted and chosen on lie before all that is forecast.
        assert times.min() > pd.Timestamp(spans.get("validate")[1], tz="UTC") + pd.Timedelta(days=1)
        for frame in bars.frames.values():
            inside = frame.index[(frame.index >= str(config.spans.train[0])) & (frame.index < "2020-05-01")]
            assert times[times.isin(inside)].max() <= inside[-1 - 3]
        assert last is None or times.min() > last
        last = times.max()
    assert last < pd.Timestamp(config.spans.get("validate")[0], tz="UTC")


def test_stacked_weights_see_the_training_span_alone(tmp_path: Path) -> None:
    config = ensemble("stacked")
    fitted = fit_bundle(config, make_bars(), root=tmp_path)
    later = fit_bundle(config, make_bars(changed_from("2020-05-01")), root=tmp_path)
    assert later.record.combination == fitted.record.combination
    assert sum(fitted.record.combination["1"]) > 0.0
    earlier = fit_bundle(config, make_bars(changed_from("2020-04-15")), root=tmp_path)
    assert earlier.record.combination != fitted.record.combination


def test_stacked_weights_see_no_embargoed_bar(tmp_path: Path) -> None:
    config, embargo = ensemble("stacked", members=MEMBERS[:3]), 4
    config = config.model_copy(update={"training": config.training.model_copy(update={"embargo": embargo})})
    found = []
    for left in (0, embargo, embargo + 1):
        frames = {symbol: frame.copy() for symbol, frame in make_bars().frames.items()}
        for frame in frames.values():
            at = np.flatnonzero(frame.index < "2020-05-01")[-1] + 1
            frame.iloc[at - left : at, :4] *= 3.0
        bars = make_bars(frames)
        found.append(stacked_weights(joined(out_of_fold(config, config.model, bars, root=tmp_path))))
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_calibrated_members_are_stacked_by_their_forecasts_alone(tmp_path: Path) -> None:
    """An eighth of the training span holds too few outcomes for an interval, and none is asked for."""
    config, bars = ensemble("stacked"), make_bars()
    plain = fit_bundle(config, bars, root=tmp_path)
    members = [{**member, "calibration": "conformal"} for member in MEMBERS]
    calibrated = fit_bundle(ensemble("stacked", members=members, calibration="conformal"), bars, root=tmp_path)
    assert calibrated.record.combination == plain.record.combination
    assert all(member.record.calibration for member in (calibrated, *calibrated.members))


def test_a_training_span_too_short_for_folds_says_what_to_do(tmp_path: Path) -> None:
    config = ensemble("stacked")
    spans = config.spans.model_copy(update={"train": (config.spans.get("validate")[0].replace(month=4),) * 2})
    with pytest.raises(
        ConfigError, match=r"model\.combine: stacked .* \(it has 1 sessions\); lengthen the span, or use"
    ):
        list(out_of_fold(config.model_copy(update={"spans": spans}), config.model, make_bars(), root=tmp_path))
    far = config.model.model_copy(
        update={"members": (config.model.members[2].model_copy(update={"lookback": 45}), *config.model.members[:2])}
    )
    with pytest.raises(ConfigError, match=r"model\.combine: stacked .*bars before it that a window needs"):
        list(out_of_fold(config, far, make_bars(), root=tmp_path))


def test_a_member_that_lies_there_is_taken_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, bars = ensemble("weighted"), make_bars()
    fresh = write_bundle(fit_bundle(config, bars, root=tmp_path / "fresh"))
    for member in config.model.members:
        own = fit_bundle(config.model_copy(update={"model": member, "name": "other"}), bars, root=tmp_path)
        write_bundle(own)
    monkeypatch.setattr(ensembles, "fit_bundle", lambda *_, **__: pytest.fail("fitted again"))
    again = write_bundle(fit_bundle(config, bars, root=tmp_path))
    assert again.record == fresh.record
    # Of other bars it is another model.
    with pytest.raises(pytest.fail.Exception, match="fitted again"):
        fit_bundle(config, make_bars(changed_from("2020-04-01")), root=tmp_path)


def test_weights_that_do_not_fit_the_members_are_refused(tmp_path: Path) -> None:
    fitted = fit_bundle(ensemble("weighted"), make_bars(), root=tmp_path)
    for combination in (None, {"1": (0.5, 0.5)}, {"2": (0.25,) * 4}, {"1": (-1.0, 1.0, 1.0, 1.0)}):
        record = fitted.record.model_copy(update={"combination": combination})
        with pytest.raises(BundleError, match="expected a weight of at least 0 for each at horizon 1"):
            ensemble_of(record, [predictor_of(member) for member in fitted.members], 0)


def test_what_is_written_forecasts_the_same(tmp_path: Path) -> None:
    columns = Columns.of(make_frame(60))
    for combine in ("mean", "weighted", "stacked", "online"):
        written = write_bundle(fit_bundle(ensemble(combine), make_bars(), root=tmp_path))
        loaded = load_bundle(written.path)
        assert loaded.record == written.record
        before, after = (Forecaster(bundle).forecast(columns) for bundle in (written, loaded))
        assert before.tobytes() == after.tobytes()

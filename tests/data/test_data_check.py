"""A data check: everything at once, what loading would refuse, and what is there of each symbol."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cleaning_bars import changed, days, minutes, without

from engine.config import CleaningConfig, DataConfig, RunConfig
from engine.data.bars import Bars
from engine.data.cleaning.checking import Checked, check_bars, tolerant
from engine.data.cleaning.findings import changed_in_hindsight, findings_frame, quality_from, tallied, within
from engine.data.cleaning.pipeline import clean
from engine.data.cuts import with_history
from engine.data.quality import KINDS, Quality
from engine.data.raw import Raw
from engine.data.sources import completed, load_bars
from engine.data_check import check_data
from engine.errors import ConfigError, DataError, StorageError
from engine.remarks import cleaning, uncleaned
from engine.report.data_words import choices

NOW = datetime(2026, 11, 24, 7, 44, 6, tzinfo=UTC)
Frames = dict[str, pd.DataFrame]


def raw_of(frames: Frames, timeframe: str = "1d") -> Raw:
    return Raw(frames=frames, timeframe=timeframe, adjustment="none", source="files")


def checked(frames: Frames, timeframe: str = "1d", **policy: str) -> Checked:
    data = DataConfig(source="files", symbols=("A",), timeframe=timeframe, cleaning=CleaningConfig(**policy))
    return check_bars(raw_of(frames, timeframe), data)


def faulty() -> Frames:
    """Two symbols with a fault of several kinds each."""
    one = changed(changed(days(), 30, high=1.0), 50, open=np.nan)
    twice = pd.concat([days(seed=2), changed(days(seed=2), 40, close=101.0).iloc[[40]]])
    return {"A": without(one, 70, 71), "B": twice}


# --- everything at once -----------------------------------------------------------------------------------------------


def test_all_kinds_are_found_where_loading_stops_at_the_first() -> None:
    data = DataConfig(source="files", symbols=("A",))
    with pytest.raises(DataError):
        clean(raw_of(faulty()), data.cleaning)
    found = checked(faulty())
    assert {"missing_value", "impossible", "gap", "conflict", "disorder"} <= set(found.quality.counts())
    assert [refusal.kind for refusal in found.refusals] == ["conflict"]
    assert found.refused == {"conflict"}
    assert "data.cleaning.conflict: drop" in found.refusals[0].sentence
    assert found.bars is None


def test_what_is_not_refused_is_what_loading_gives() -> None:
    found = checked(faulty(), conflict="drop")
    frames, quality = clean(raw_of(faulty()), CleaningConfig(conflict="drop"))
    assert found.refusals == ()
    assert found.quality.findings == quality.findings
    assert found.bars is not None
    assert all(found.bars.frames[symbol].equals(frame) for symbol, frame in frames.items())


def test_every_refused_kind_is_told_and_not_only_the_first() -> None:
    found = checked(faulty(), impossible="refuse", missing_value="refuse", gap="refuse")
    assert {refusal.kind for refusal in found.refusals} == {"conflict", "impossible", "missing_value", "gap"}
    assert all(refusal.sentence for refusal in found.refusals)


def test_a_policy_that_refuses_what_is_not_there_refuses_nothing() -> None:
    refusing = dict.fromkeys(KINDS, "refuse")
    found = checked({"A": days()}, **refusing)
    assert found.refusals == ()
    assert found.quality.counts() == {}


def test_an_index_without_volume_is_not_refused_for_it() -> None:
    index = days(seed=3).assign(volume=0.0)
    found = checked({"A": days(), "I": index}, zero_volume="refuse")
    assert "zero_volume" in found.quality.counts()
    assert found.refusals == ()
    assert found.bars is not None


def test_a_symbol_of_which_nothing_can_be_made_hides_no_other() -> None:
    broken = days(seed=4).assign(low=np.nan)
    found = checked({"A": changed(days(), 30, high=1.0), "B": broken, "C": days(seed=5).iloc[:1]})
    assert set(found.frames) == {"A"}
    assert [refusal.symbol for refusal in found.refusals] == ["B", "C"]
    assert found.quality.counts() == {"impossible": 1}
    assert [(own.symbol, own.bars) for own in found.coverage] == [("A", 119), ("B", 0), ("C", 0)]


def test_no_symbol_at_all_is_still_an_answer() -> None:
    found = checked({"A": days().iloc[:1]})
    assert found.frames == {}
    assert len(found.refusals) == 1


def test_bars_that_overlap_are_refused_after_cleaning() -> None:
    shifted = minutes("2023-03-14", step=30)
    shifted.index = shifted.index + pd.Timedelta(minutes=15)
    found = checked({"A": minutes("2023-03-14", step=30), "B": shifted.iloc[:-1]}, "30m")
    assert len(found.refusals) == 1
    assert found.refusals[0].kind is None
    assert found.bars is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_tolerant_policy_refuses_nothing_and_changes_nothing_else(kind: str) -> None:
    policy = CleaningConfig(**{kind: "refuse"}, spike="drop") if kind != "spike" else CleaningConfig(spike="refuse")
    made = tolerant(policy)
    assert "refuse" not in made.model_dump().values()
    others = {name: how for name, how in policy.model_dump().items() if how != "refuse"}
    assert {name: getattr(made, name) for name in others} == others


# --- coverage ---------------------------------------------------------------------------------------------------------


def test_coverage_by_the_calendar() -> None:
    frame = changed(without(minutes("2023-03-14", "2023-11-24"), 10, 11, 400), 20, high=1.0)
    own = checked({"A": frame}, "1m").coverage[0]
    # A session of 390 minutes and the half day after Thanksgiving of 210; the sessions between them are missing.
    between = own.expected - 600 if own.expected is not None else 0
    assert (own.bars, own.dropped) == (596, 1)
    assert own.missing == 3 + between
    assert own.first == frame.index[0]
    assert own.last == frame.index[-1]
    assert own.missing_pct == pytest.approx(100.0 * own.missing / own.expected)


def test_coverage_without_a_calendar_says_nothing_of_missing_bars() -> None:
    raw = Raw(frames={"A": without(days(), 5)}, timeframe="1d", adjustment="none", source="files", market=False)
    own = check_bars(raw, DataConfig(source="files", symbols=("A",))).coverage[0]
    assert (own.bars, own.missing, own.expected, own.missing_pct) == (119, None, None, None)


def test_a_time_whose_second_bar_was_dropped_is_not_lost() -> None:
    own = checked({"A": pd.concat([days(), days().iloc[[40]]]).sort_index()}).coverage[0]
    assert (own.bars, own.dropped, own.missing, own.expected) == (120, 0, 0, 120)


# --- what is counted in a part of the bars ----------------------------------------------------------------------------


def test_only_what_lies_in_the_bars_of_a_run_counts() -> None:
    frame = changed(changed(without(days(), 100), 20, high=1.0), 80, high=1.0)
    frames, quality = clean(raw_of({"A": frame}), CleaningConfig())
    assert tallied(quality)["impossible"]["bars"] == 2
    bars = Bars(frames=frames, timeframe="1d", adjustment="none", source="files", quality=quality)
    used, _, _ = with_history(bars, (frame.index[60].date(), frame.index[90].date()), warmup=5)
    assert tallied(used.quality) == {
        "impossible": {"bars": 1, "symbols": 1, "dropped": 1, "repaired": 0, "flagged": 0},
    }
    assert set(used.quality.repairs["time"]) == {frame.index[80]}


def test_missing_bars_are_counted_one_by_one() -> None:
    frame = without(days(), 20, 60, 61, 100)
    frames, quality = clean(raw_of({"A": frame}), CleaningConfig())
    part = within(quality, {"A": frames["A"].iloc[30:70]})
    assert part.counts() == {"gap": 2}
    assert part.findings[0].time == days().index[60]


def test_late_starts_count_where_others_have_bars_before() -> None:
    frames, quality = clean(raw_of({"A": days(), "B": days(seed=2).iloc[50:]}), CleaningConfig())
    whole = {symbol: frame.iloc[-100:] for symbol, frame in frames.items()}
    assert within(quality, whole).counts() == {"late_start": 1}
    assert within(quality, {s: f.loc[frames["B"].index[5] :] for s, f in frames.items()}).counts() == {}
    assert within(quality, {"A": frames["A"]}).counts() == {}
    assert within(quality, {}).findings == ()


def test_findings_come_back_from_a_frame() -> None:
    quality = checked(faulty(), conflict="drop").quality
    frame = findings_frame(quality)
    assert list(frame["count"]) == [finding.count for finding in quality.findings]
    assert quality_from(frame, quality.repairs).findings == quality.findings
    assert findings_frame(Quality()).empty


# --- what a run says --------------------------------------------------------------------------------------------------


def test_a_run_says_what_cleaning_did_in_a_sentence() -> None:
    said = cleaning(checked(faulty(), conflict="drop").quality)
    assert len(said) == 1
    assert "cleaning dropped 3 bars of 2 symbols (conflict, missing_value, impossible)" in said[0]
    assert "gap 2" in said[0]
    assert "nextbar data check" in said[0]
    assert cleaning(Quality()) == []


def test_dropping_spikes_is_told_to_look_ahead() -> None:
    frame = changed(days(), 60, open=400.0, high=404.0, low=396.0, close=400.0)
    flagged, dropped = (checked({"A": frame}, spike=how).quality for how in ("flag", "drop"))
    assert changed_in_hindsight(flagged) == 0
    assert not any("HINDSIGHT" in sentence for sentence in cleaning(flagged))
    assert changed_in_hindsight(dropped) == 1
    assert any("live trading cannot" in sentence for sentence in cleaning(dropped))


@pytest.mark.parametrize(("policy", "count"), [("flag", 0), ("refuse", 0), ("drop", 1), ("repair", 1)])
def test_a_broker_s_bars_are_not_cleaned_of_spikes(policy: str, count: int) -> None:
    data = DataConfig(source="alpaca", symbols=("A",), cleaning=CleaningConfig(spike=policy))
    assert len(uncleaned(data)) == count


# --- the use case -----------------------------------------------------------------------------------------------------


def config_of(folder: Path, **data: object) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "mine",
            "data": {"source": "sample:tech", "symbols": "all", **data},
            "spans": {"test": ["2011-01-01", "2011-06-30"]},
            "strategy": {"kind": "strategies.buy_and_hold:BuyAndHold"},
            "folder": folder,
        }
    )


def faulty_folder(folder: Path) -> dict[str, object]:
    (folder / "bars").mkdir()
    for symbol, frame in faulty().items():
        frame.rename_axis("time").reset_index().to_parquet(folder / "bars" / f"{symbol}.parquet", index=False)
    return {"source": "files", "path": "bars"}


def test_a_check_is_written_whole_and_its_hash_is_that_of_the_bars_of_a_run(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    done = check_data(config, root=tmp_path, now=NOW)
    assert done.folder == tmp_path / "checks" / "20261124T074406Z-mine"
    assert sorted(path.name for path in done.folder.iterdir()) == ["check.html", "findings.parquet"]
    known = done.to_json()
    assert known["content_hash"] == load_bars(config.data, config.folder).content_hash
    assert known["repairs"] is None
    assert (known["status"], done.exit_code) == ("ok", 0)


def test_a_check_of_faulty_files_says_what_is_refused(tmp_path: Path) -> None:
    done = check_data(config_of(tmp_path, **faulty_folder(tmp_path)), root=tmp_path, now=NOW)
    known = done.to_json()
    assert (known["status"], done.exit_code, known["content_hash"]) == ("refused", DataError.exit_code, None)
    assert known["counts"]["conflict"]["refused"] is True
    assert known["counts"]["impossible"]["policy"] == "drop"
    assert known["counts"]["impossible"]["worst"]["symbol"] == "A"
    repairs = pd.read_parquet(known["repairs"])
    assert {"impossible: drop", "missing_value: drop", "conflict: drop"} <= set(repairs["rule"])
    assert len(pd.read_parquet(done.folder / "findings.parquet")) == len(known["findings"])


def test_a_check_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "checks").write_text("in the way")
    with pytest.raises(StorageError, match="the check could not be written"):
        check_data(config_of(tmp_path), root=tmp_path, now=NOW)
    assert not list(tmp_path.rglob(".*partial*"))


def test_a_source_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        check_data(config_of(tmp_path, source="files", path="nothing"), root=tmp_path, now=NOW)
    assert not (tmp_path / "checks").exists()


@pytest.mark.parametrize("seed", range(12))
def test_a_check_and_loading_never_differ(seed: int) -> None:
    random = np.random.default_rng(seed)
    frames = {}
    for symbol in "AB":
        frame = days(80, seed=int(random.integers(99)))
        for _ in range(random.integers(4)):
            bar, column = int(random.integers(80)), int(random.integers(5))
            frame.iloc[bar, column] = random.choice([np.nan, np.inf, -1.0, 0.0, 300.0])
        if random.random() < 0.5:
            frame = pd.concat([frame, frame.iloc[[5]] * random.choice([1.0, 1.01])])
        frames[symbol] = without(frame, *random.integers(80, size=2).tolist())
    policy = {kind: str(random.choice(choices(kind))) for kind in KINDS}
    data = DataConfig(source="files", symbols=("A",), cleaning=CleaningConfig(**policy))
    found = check_bars(raw_of(frames), data)
    try:
        made, quality = clean(raw_of(frames), data.cleaning)
        loaded = completed(raw_of(frames), made, quality, data)
    except DataError:
        assert found.refusals
        assert found.bars is None
    else:
        assert found.bars is not None
        assert found.bars.content_hash == loaded.content_hash
        assert found.quality.findings == quality.findings

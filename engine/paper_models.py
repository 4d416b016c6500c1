"""Which bundle decides on which bars of a paper run, where its run file has come to name a newer one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from engine.config import DataConfig, RunConfig
from engine.data.aggregation import next_end
from engine.data.calendars import sessions_of
from engine.errors import BundleError, DataError
from engine.live.journal import FILE, Journal
from engine.model_sections import BundleReference
from engine.preparation import Prepared, forecaster_of
from engine.sections import digest, dump
from strategies.loading import load_strategy
from strategies.rule import Context

if TYPE_CHECKING:
    from models.forecaster import Forecaster, Turn


class Change(NamedTuple):
    """A newer bundle for the bars after a moment, UTC ns, the first of which is of the session ``begins``.

    ``old`` and ``new`` have the bundles' ``name``, ``path`` and ``hash`` (SHA-256 of what was learned).
    """

    after: int
    begins: date
    old: Mapping[str, str]
    new: Mapping[str, str]

    def entry(self) -> dict[str, Any]:
        """As the journal holds it."""
        return {"after": self.after, "begins": str(self.begins), "old": dict(self.old), "new": dict(self.new)}

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Change:
        """The change of a journal's entry."""
        return cls(int(body["after"]), date.fromisoformat(body["begins"]), dict(body["old"]), dict(body["new"]))


def identity(config: RunConfig) -> str:
    """A hash of the run file that stays the same when it names another bundle."""
    values = dump(config)
    if isinstance(config.model, BundleReference):
        values["model"] = {"bundle": ""}
    return digest(values)


def model_of(forecaster: Forecaster | None) -> dict[str, str] | None:
    """Name, path and hash of what a run decides with; None without a model."""
    if forecaster is None:
        return None
    bundle = forecaster.bundle
    return {"name": bundle.path.name, "path": str(bundle.path.resolve()), "hash": bundle.record.weights_hash}


def succession(
    prepared: Prepared, folder: Path, manifest: Mapping[str, Any], *, clock: int
) -> tuple[Prepared, Change | None]:
    """A run that goes on, with each bundle that it has decided with in its own time, and the run file's from now on.

    Args:
        prepared: the run as its file is now.
        folder: of the run that goes on.
        clock: the moment before which nothing more is decided, UTC ns; 0 where that is the journal's end.

    Returns:
        The run with all its bundles, and the change that is still to be journalled, if there is one.

    Raises:
        BundleError: an earlier bundle is gone or not what it was, or forecasts something else than the new one.
    """
    first, now = manifest["model"], model_of(prepared.forecaster)
    if not isinstance(prepared.config.model, BundleReference) or first is None or now is None:
        return prepared, None
    changes, last = _changes(folder, manifest)
    decides = changes[-1].new if changes else first
    change = None
    if now["hash"] != decides["hash"]:
        after = max(last, clock)
        change = Change(after, _next_session(after, prepared.config.data), decides, now)
        changes = [*changes, change]
    if not changes:
        return prepared, None
    from models.succession import Successive

    assert prepared.forecaster is not None
    turns = _turns(first, changes, prepared.forecaster)
    forecaster = Successive(turns)
    context = Context.of(prepared.config, forecaster)
    return (
        replace(
            prepared,
            forecaster=forecaster,
            strategy=load_strategy(prepared.config, context),
            warmup=max(prepared.warmup, forecaster.memory),
        ),
        change,
    )


def forecaster_of_run(folder: Path, manifest: Mapping[str, Any], config: RunConfig, root: Path) -> Forecaster | None:
    """What a paper run has decided with, each bundle in its own time; ``root`` holds ``bundles/``.

    Raises:
        BundleError: a bundle is gone, or not what it was.
    """
    changes, _ = _changes(folder, manifest) if isinstance(config.model, BundleReference) else ([], 0)
    if not changes:
        return forecaster_of(config, root)
    from models.succession import Successive

    return Successive(_turns(manifest["model"], changes, None))


def _changes(folder: Path, manifest: Mapping[str, Any]) -> tuple[list[Change], int]:
    """The changes that a run's journal holds, and the end of its last bar, UTC ns; a damaged one is told by others."""
    changes: list[Change] = []
    last = 0
    with suppress(DataError):
        journal = Journal.read_only(folder / FILE, identity=manifest["journal"])
        try:
            for entry in journal.entries("bars", "model"):
                if entry.kind == "bars":
                    last = int(entry.body["time"])
                else:
                    changes.append(Change.of(entry.body))
        finally:
            journal.close()
    return changes, last


def _next_session(after: int, data: DataConfig) -> date:
    end = pd.DatetimeIndex([next_end(after, data)], tz="UTC")
    return sessions_of(end)[0].date()


def _turns(first: Mapping[str, str], changes: list[Change], newest: Forecaster | None) -> list[Turn]:
    """The bundles in the order of time; ``newest`` is there already, if the last of them is what it decides with."""
    from models.forecaster import Turn

    turns = [Turn(_loaded(first))]
    for change in changes:
        is_last = change is changes[-1] and newest is not None
        bundle = newest.bundle if is_last and newest is not None else _loaded(change.new)
        before = turns[-1].bundle.record.model
        if (before.horizon, before.target) != (bundle.record.model.horizon, bundle.record.model.target):
            raise BundleError(
                f"model.bundle: {change.new['name']} forecasts {_what(bundle.record.model)}, and the run has traded "
                f"with {change.old['name']}, which forecasts {_what(before)}; name one that forecasts the same, or "
                "begin another run with --new"
            )
        turns.append(Turn(bundle, change.after, change.begins))
    return turns


def _what(model: Any) -> str:
    return f"{'the excess' if model.target == 'excess' else 'the return'} over {model.horizon} bars"


def _loaded(model: Mapping[str, str]) -> Any:
    """A bundle that a run has decided with, as it was then."""
    from models.bundle_files import load_bundle

    try:
        bundle = load_bundle(Path(model["path"]))
    except BundleError as error:
        raise BundleError(
            f"the run has decided with the bundle {model['name']}, which cannot be read ({error}); put it back, or "
            "begin another run with --new"
        ) from None
    if bundle.record.weights_hash != model["hash"]:
        raise BundleError(
            f"{model['path']}: the run has decided with a bundle of hash {model['hash'][:12]}, and this one's is "
            f"{bundle.record.weights_hash[:12]}; put that back, or begin another run with --new"
        )
    return bundle

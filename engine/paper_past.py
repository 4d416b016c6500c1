"""Which run a paper command goes on with: the newest of its run file and account, unless that has come to its end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import ConfigError, NextbarError, RiskHalt, StorageError
from engine.live import locks
from engine.live.journal import FILE
from engine.live.switch import Switch
from engine.model_sections import BundleReference
from engine.paper_models import identity
from engine.preparation import Prepared
from engine.report.run import list_runs, load_manifest

_OVER = ("completed", "halted")


class Earlier(NamedTuple):
    """A run that goes on: its folder and its manifest."""

    folder: Path
    manifest: dict[str, Any]


def earlier_run(runs: Path, prepared: Prepared, *, mode: str, account: str | None) -> Earlier | None:
    """The run to go on with, or None: it was cut off, stopped by its user, or failed.

    Args:
        runs: the folder of runs.
        account: number of the account; None: whatever account it was, for a replay brings its own.

    Raises:
        RiskHalt: the newest run was killed, and is over.
        ConfigError: its strategy or bundle is not what it was, and it is no replay, which may as well begin anew.
            Another bundle that is named by its path takes over, see ``engine.paper_models``.
        StorageError: another process trades it.
    """
    found = _newest(runs, identity(prepared.config), mode, account)
    if found is None:
        return None
    folder, manifest = found
    if manifest["status"] in _OVER:
        killed = Switch(folder).look().killed
        if killed:
            raise RiskHalt(f"run {folder.name} was {killed}, and stays so; begin another with --new")
        return None
    holder = locks.holder(folder / FILE)
    if holder is not None:
        raise StorageError(
            f"run {folder.name} of this run file is being traded by another process (pid {holder}); stop that first, "
            "or begin another run with --new"
        )
    changed = _changed(manifest, prepared)
    if changed and mode == "replay":
        return None
    if changed:
        raise ConfigError(
            f"run {folder.name} was cut off, and {changed} since: it cannot go on as it was; put that back, or close "
            f"its positions with nextbar kill {folder.name} and begin another run with --new"
        )
    return found


def _newest(runs: Path, run: str, mode: str, account: str | None) -> Earlier | None:
    for folder in list_runs(runs):
        with suppress(NextbarError):
            manifest = load_manifest(folder)
            of_account = account is None or manifest.get("account") == account
            of_file = manifest.get("identity") == run
            if manifest.get("kind") == "paper" and manifest.get("mode") == mode and of_account and of_file:
                return Earlier(folder, manifest)
    return None


def _changed(manifest: dict[str, Any], prepared: Prepared) -> str:
    if manifest["strategy_hash"] != prepared.strategy.source_hash:
        return "the strategy's source has changed"
    universe = None if prepared.bars.membership is None else prepared.bars.membership.digest
    if manifest["hashes"].get("universe") != universe:
        return "its universe has changed"
    bundle = None if prepared.forecaster is None else prepared.forecaster.bundle.path.name
    if manifest.get("bundle") != bundle and not isinstance(prepared.config.model, BundleReference):
        return f"its bundle was {manifest.get('bundle')} and is {bundle}"
    return ""

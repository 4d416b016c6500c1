"""Bundles: a trained model on disk. Loading one never executes code, and a changed byte is noticed.

A bundle is the folder ``bundles/<name>-<hash12>`` with weights.safetensors, bundle.json and training.csv. The hash is
of what the run file asks for, so the same request finds the same bundle.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import platform
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError

from engine.config import BundleReference, LstmConfig, RunConfig, Section, Spans, digest, dump
from engine.data.bars import Bars
from engine.data.universe import read_universe
from engine.errors import BundleError, ConfigError, StorageError
from models.features import Feature, max_memory, parse_features
from models.networks import Network, build_network
from models.training_bars import TrainingBars, changes, training_bars
from models.windows import Singles

WEIGHTS, RECORD, CURVE = "weights.safetensors", "bundle.json", "training.csv"
_HASH_LENGTH = 12
_ASKED_DATA = {
    "source", "symbols", "timeframe", "base", "path", "columns", "timezone", "stamp", "date_format", "feed",
    "adjustment", "cleaning",
}  # fmt: skip
_PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".bin"}
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


class BundleRecord(Section):
    """What bundle.json says.

    Attributes:
        hash: of the request, see ``bundle_hash``.
        model, spans, seed, timeframe, symbols, close_only, adjustment: what was trained, and on what.
        memory: bars that a forecast depends on.
        training_bars: symbol -> the bars that the fit could see.
        train_mean: mean label of the training span. train_naive_mae: its mean absolute label.
        evaluation: figures on the test span, see ``models.evaluation.score``.
        versions: of python, torch, numpy and nextbar.
        files: file name -> SHA-256.
    """

    hash: str
    model: LstmConfig
    spans: Spans
    seed: int
    timeframe: str
    symbols: tuple[str, ...]
    close_only: bool
    adjustment: str
    memory: int
    training_bars: Mapping[str, TrainingBars]
    train_mean: float
    train_naive_mae: float
    evaluation: Mapping[str, float | None]
    versions: Mapping[str, str]
    files: Mapping[str, str]

    @property
    def weights_hash(self) -> str:
        """SHA-256 of the weights."""
        return self.files[WEIGHTS]

    @property
    def last_seen(self) -> date:
        """The last session that the model was trained or chosen on: it knows nothing after it, and all before it."""
        return max(span[1] for span in (self.spans.get("train"), self.spans.get("validate")))


@dataclass(frozen=True)
class EpochLosses:
    """A point of the training curve; losses are the head's, averaged over the windows of the span."""

    epoch: int
    train_loss: float
    validation_loss: float


@dataclass(frozen=True, eq=False)
class Bundle:
    """A trained model.

    Attributes:
        path: the folder where it lies, or will.
        record: what bundle.json says.
        features: the record's features, parsed.
        network: on the CPU, in evaluation mode.
        curve: losses of each epoch, from epoch 1 on.
    """

    path: Path
    record: BundleRecord
    features: tuple[Feature, ...]
    network: Network
    curve: tuple[EpochLosses, ...]


def bundle_hash(config: RunConfig) -> str:
    """SHA-256 of what training depends on: model, training, spans, and the data asked for (symbols in any order).

    The benchmark, warm-up, strategy, broker and risk do not enter.

    Raises:
        ConfigError: the run file has no model of its own.
    """
    data = {name: value for name, value in dump(config.data).items() if name in _ASKED_DATA}
    data["symbols"] = sorted(config.data.symbols)
    if config.data.path is not None:
        # By its name: a run's own copy of the run file has the whole path, and asks for the same bundle.
        data["path"] = config.resolve(config.data.path).resolve().name
    if config.data.universe is not None:
        # Who was a member when, whatever the file is called.
        data["universe"] = read_universe(config.resolve(config.data.universe)).digest
    return digest(dump(own_model(config)), dump(config.training), dump(config.spans), data)


def own_model(config: RunConfig) -> LstmConfig:
    """The model section, where it describes a model; a ConfigError where it is absent or names a bundle."""
    if config.model is None:
        raise ConfigError("model: this command needs a model, and the run file has none; add a model section")
    if isinstance(config.model, BundleReference):
        raise ConfigError(
            f"model.bundle: the run file names a trained bundle ({config.model.bundle}), which cannot be trained; "
            "describe the model instead"
        )
    return config.model


def find_bundle(config: RunConfig, root: Path = Path("bundles")) -> Path:
    """The folder of the bundle that the run file asks for: by its path where it names one, else by hash.

    A bundle trained under another run's name is found too, since the hash says that it is the same model.

    Raises:
        ConfigError: the run file has no model.
        BundleError: there is no such bundle; names the command that makes it.
    """
    if isinstance(config.model, BundleReference):
        named = config.model.bundle
        # Relative to the run file, or, as it is typed behind --set, to the folder in which the command runs.
        found = [path for path in (config.resolve(named), root.parent / named) if path.is_dir()]
        if not found:
            raise BundleError(
                f"model.bundle: {config.resolve(named)}: no such bundle folder, nor is {root.parent / named} one; "
                "train one, or correct the path"
            )
        return found[0]
    short = bundle_hash(config)[:_HASH_LENGTH]
    own = root / f"{config.name}-{short}"
    if own.is_dir():
        return own
    others = sorted(path for path in root.glob(f"[!.]*-{short}") if path.is_dir())
    if not others:
        raise BundleError(f"{own}: no bundle of this model, data and spans yet; run `nextbar train CONFIG` first")
    return others[0]


def new_bundle(
    config: RunConfig,
    network: Network,
    *,
    curve: Sequence[EpochLosses],
    bars: Bars,
    train_labels: Singles,
    root: Path,
) -> Bundle:
    """A bundle in memory, not evaluated and not written yet.

    Args:
        config: the run file, whose model section describes the network.
        network: fitted, on the CPU.
        curve: losses of each epoch.
        bars: all bars that were loaded for training.
        train_labels: the labels of the training span, log returns.
        root: the folder that will hold the bundle's folder.
    """
    model = own_model(config)
    features = parse_features(model.features, close_only=bars.close_only)
    memory = model.lookback + max_memory(features) - 1
    labels = np.asarray(train_labels, dtype=np.float64)
    record = BundleRecord(
        hash=bundle_hash(config),
        model=model,
        spans=config.spans,
        seed=config.training.seed,
        timeframe=bars.timeframe,
        symbols=bars.symbols,
        close_only=bars.close_only,
        adjustment=bars.adjustment,
        memory=memory,
        training_bars=training_bars(bars, config.spans, memory=memory),
        train_mean=float(labels.mean()),
        train_naive_mae=float(np.abs(labels).mean()),
        evaluation={},
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "nextbar": version("nextbar"),
        },
        files={},
    )
    return Bundle(root / f"{config.name}-{record.hash[:_HASH_LENGTH]}", record, features, network.eval(), tuple(curve))


def evaluated(bundle: Bundle, evaluation: Mapping[str, float | None]) -> Bundle:
    """The bundle with its figures on the test span."""
    return replace(bundle, record=bundle.record.model_copy(update={"evaluation": dict(evaluation)}))


def check_fit(bundle: Bundle, config: RunConfig, bars: Bars) -> tuple[str, ...]:
    """Check that a bundle can be used on these bars.

    Symbols that it never saw are allowed, since it is pooled over symbols and its features are scale-free.

    Returns:
        Remarks for the user, one sentence each: training bars that have changed, symbols not trained on, prices
        adjusted in another way.

    Raises:
        BundleError: another timeframe, features that close-only bars do not have, or not the run file's model.
    """
    record = bundle.record
    if config.model is not None and not isinstance(config.model, BundleReference):
        asked = bundle_hash(config)
        if record.hash != asked:
            raise BundleError(
                f"{bundle.path}: the bundle of another model, data or spans: expected hash {asked[:_HASH_LENGTH]}, "
                f"found {record.hash[:_HASH_LENGTH]}; run `nextbar train CONFIG`"
            )
    if isinstance(config.model, LstmConfig) and (record.model, record.spans) != (config.model, config.spans):
        raise BundleError(f"{bundle.path}: its record names another model or other spans than its hash; train again")
    if bars.timeframe != record.timeframe:
        raise BundleError(
            f"{bundle.path}: trained on {record.timeframe} bars, and data.timeframe is {bars.timeframe}; "
            "use bars of the same timeframe, or train again"
        )
    try:
        parse_features(record.model.features, close_only=bars.close_only)
    except ConfigError as error:
        raise BundleError(f"{bundle.path}: its features do not fit these bars ({error})") from None
    remarks = changes(record.training_bars, training_bars(bars, record.spans, memory=record.memory))
    strangers = [symbol for symbol in bars.symbols if symbol not in record.symbols]
    if strangers:
        remarks.append(
            f"the bundle was not trained on {', '.join(strangers)}; it forecasts them as one more of its kind"
        )
    if bars.adjustment != record.adjustment:
        remarks.append(f"the bundle was trained on prices adjusted: {record.adjustment}, these are: {bars.adjustment}")
    return tuple(remarks)


def write_bundle(bundle: Bundle) -> Bundle:
    """Write a bundle into its folder, in the place of an earlier one; whole or not at all.

    Returns:
        The bundle as written, its record holding the files' hashes.

    Raises:
        StorageError: the folder cannot be written; an earlier bundle is still there, and nothing else.
    """
    weights = {name: value.contiguous() for name, value in bundle.network.state_dict().items()}
    contents = {WEIGHTS: safetensors.torch.save(weights), CURVE: _curve_table(bundle.curve)}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    record = bundle.record.model_copy(update={"files": hashes})
    values = record.model_dump(mode="json")
    text = json.dumps({**values, "sha256": digest(values)}, indent=2, sort_keys=True)
    contents[RECORD] = f"{text}\n".encode()
    temporary = bundle.path.with_name(f".{bundle.path.name}.{secrets.token_hex(4)}.new")
    try:
        temporary.mkdir(parents=True)
        for name, content in contents.items():
            _write_durably(temporary / name, content)
        _replace_folder(bundle.path, temporary)
    except OSError as error:
        raise StorageError(
            f"{bundle.path}: the bundle could not be written ({error.strerror or error}); free some space, or "
            "make the folder writable"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return replace(bundle, record=record)


def _curve_table(curve: Sequence[EpochLosses]) -> bytes:
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([[field.name for field in fields(EpochLosses)], *(astuple(point) for point in curve)])
    return table.getvalue().encode()


def _parse_curve(content: bytes) -> tuple[EpochLosses, ...]:
    rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return tuple(
        EpochLosses(int(row["epoch"]), float(row["train_loss"]), float(row["validation_loss"])) for row in rows
    )


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _replace_folder(target: Path, new: Path) -> None:
    """Rename ``new`` to ``target``; a folder cannot be renamed over another, so the earlier one steps aside first."""
    if not target.exists():
        new.rename(target)
    else:
        aside = new.with_suffix(".old")
        target.rename(aside)
        try:
            new.rename(target)
        except BaseException:
            aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_bundle(path: Path) -> Bundle:
    """Read a bundle and check every byte of it; no code in it is ever executed.

    Raises:
        BundleError: a file is missing, truncated, edited, a pickle, or does not fit the others; names the file.
    """
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle folder; run `nextbar train CONFIG` first")
    contents = {name: _read(path / name) for name in (RECORD, WEIGHTS, CURVE)}
    _refuse_pickles(path)
    record = _parse_record(path / RECORD, contents[RECORD])
    for name in (WEIGHTS, CURVE):
        found, expected = hashlib.sha256(contents[name]).hexdigest(), record.files.get(name)
        if found != expected:
            raise BundleError(
                f"{path / name}: truncated or edited: expected SHA-256 {str(expected)[:_HASH_LENGTH]}, found "
                f"{found[:_HASH_LENGTH]}; run `nextbar train CONFIG --force`"
            )
    try:
        features = parse_features(record.model.features, close_only=record.close_only)
    except ConfigError as error:
        raise BundleError(f"{path / RECORD}: {error}") from None
    memory = record.model.lookback + max_memory(features) - 1
    if memory != record.memory:
        raise BundleError(f"{path / RECORD}: its features need {memory} bars, and it says {record.memory}; train again")
    with torch.random.fork_rng(devices=()):  # first weights are drawn and thrown away: leave the user's seed alone
        network = build_network(record.model)
    _load_weights(path / WEIGHTS, contents[WEIGHTS], network)
    return Bundle(path, record, features, network.eval(), _parse_curve(contents[CURVE]))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise BundleError(f"{path}: the bundle lacks this file; run `nextbar train CONFIG --force`") from None
    except OSError as error:
        raise BundleError(f"{path}: could not be read ({error.strerror or error})") from error


def _refuse_pickles(path: Path) -> None:
    for file in sorted(path.rglob("*")):
        if not file.is_file():
            continue
        with file.open("rb") as opened:
            start = opened.read(4)
        if file.suffix.lower() in _PICKLE_SUFFIXES or start.startswith(_PICKLE_STARTS):
            raise BundleError(
                f"{file}: a pickle or an archive, which can execute code when loaded; expected safetensors only, so "
                "the bundle is not opened; remove the file, or train again"
            )


def _parse_record(path: Path, content: bytes) -> BundleRecord:
    try:
        values = json.loads(content)
        expected = values.pop("sha256")
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise BundleError(f"{path}: truncated or not a bundle's record; run `nextbar train CONFIG --force`") from None
    found = digest(values)
    if found != expected:
        raise BundleError(
            f"{path}: edited since it was written: expected SHA-256 {str(expected)[:_HASH_LENGTH]}, found "
            f"{found[:_HASH_LENGTH]}; run `nextbar train CONFIG --force`"
        )
    try:
        return BundleRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"{path}: written by another version of nextbar: {where}: {first['msg'].lower()}; train again"
        ) from None


def _load_weights(path: Path, content: bytes, network: Network) -> None:
    try:
        weights = safetensors.torch.load(content)
    except (SafetensorError, ValueError) as error:
        raise BundleError(f"{path}: not a safetensors file ({error}); run `nextbar train CONFIG --force`") from None
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise BundleError(
                f"{path}: {name}: expected shape {expected.get(name, 'none')}, found {found.get(name, 'none')}; "
                "these weights belong to another model; train again"
            )
    network.load_state_dict(weights)

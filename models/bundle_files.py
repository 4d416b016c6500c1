"""Bundles on disk: written whole or not at all; loading one never executes code, and a changed byte is noticed.

A bundle is the folder ``bundles/<name>-<hash12>`` with weights.safetensors, bundle.json and training.csv, and what else
its family keeps. A bundle of bundles has its members in ``members/0``, ``members/1`` and so on, each a whole bundle.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError

from engine.errors import BundleError, ConfigError, StorageError
from engine.model_sections import EnsembleConfig, ModelSection
from engine.sections import digest
from models.bundle import CURVE, HASH_LENGTH, RECORD, WEIGHTS, Bundle, BundleRecord
from models.curve import EpochLosses
from models.features import parse_features
from models.memory import memory_of
from models.networks import Network, build_network

_PICKLE_SUFFIXES = {".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".bin"}
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


def write_bundle(bundle: Bundle) -> Bundle:
    """Write a bundle into its folder, in the place of an earlier one; whole or not at all.

    Returns:
        The bundle as written, its record holding the files' hashes.

    Raises:
        StorageError: the folder cannot be written; an earlier bundle is still there, and nothing else.
    """
    record, contents = _contents(bundle)
    temporary = bundle.path.with_name(f".{bundle.path.name}.{secrets.token_hex(4)}.new")
    try:
        temporary.mkdir(parents=True)
        for name, content in contents.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
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


def _contents(bundle: Bundle) -> tuple[BundleRecord, dict[str, bytes]]:
    """The record with the files' hashes, and every file of the bundle by its path in it."""
    contents: dict[str, bytes] = {}
    if bundle.network is not None:
        weights = {name: value.contiguous() for name, value in bundle.network.state_dict().items()}
        contents = {WEIGHTS: safetensors.torch.save(weights), CURVE: _curve_table(bundle.curve)}
        contents |= bundle.network.texts()
    for position, member in enumerate(bundle.members):
        _, own = _contents(member)
        contents |= {f"{member_folder(position)}/{name}": content for name, content in own.items()}
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    record = bundle.record.model_copy(update={"files": hashes})
    values = record.model_dump(mode="json")
    text = json.dumps({**values, "sha256": digest(values)}, indent=2, sort_keys=True)
    contents[RECORD] = f"{text}\n".encode()
    return record, contents


def member_folder(position: int) -> str:
    """Where a member lies in its bundle."""
    return f"members/{position}"


def _curve_table(curve: Sequence[EpochLosses]) -> bytes:
    table = io.StringIO(newline="")
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([[field.name for field in fields(EpochLosses)], *(astuple(point) for point in curve)])
    return table.getvalue().encode()


def _parse_curve(path: Path, content: bytes) -> tuple[EpochLosses, ...]:
    try:
        rows = csv.DictReader(io.StringIO(content.decode(), newline=""))
        return tuple(
            EpochLosses(int(row["epoch"]), float(row["train_loss"]), float(row["validation_loss"])) for row in rows
        )
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise BundleError(f"{path}: not the losses of a training ({error}); train again") from None


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
    _refuse_pickles(path)
    return _load(path)


@dataclass(frozen=True, kw_only=True)
class _Place:
    """What the bundle around a member says of it: its model, and file name -> SHA-256."""

    model: ModelSection
    files: Mapping[str, str]


def _load(path: Path, place: _Place | None = None) -> Bundle:
    """A bundle, or a member of the one around it."""
    record_bytes = _read(path / RECORD)
    record = _parse_record(path / RECORD, record_bytes)
    strange = [name for name in record.files if not re.fullmatch(r"(members/[0-9]{1,4}/)*[A-Za-z0-9_-]+\.[a-z]+", name)]
    if strange:
        raise BundleError(f"{path / RECORD}: {strange[0]!r} is no name of a bundle's file; train again")
    own = {name: _read(path / name) for name in record.files if not name.startswith("members/")}
    _check_files(path, own, record.files)
    parts = _parts(record)
    if place is not None:
        _check_files(path, {**own, RECORD: record_bytes}, place.files)
        # What a member may be bounds the depth: a walk-forward of ensembles of single models.
        if record.model != place.model or record.takes_over is not None:
            raise BundleError(f"{path / RECORD}: not the member that the bundle around it is made of; train again")
    found = {int(name.split("/")[1]) for name in record.files if name.startswith("members/")}
    if found != set(range(len(parts))):
        raise BundleError(
            f"{path / RECORD}: expected {len(parts)} members, found {len(found)}; run `nextbar train CONFIG --force`"
        )
    try:
        memory = memory_of(record.model, close_only=record.close_only)
    except ConfigError as error:
        raise BundleError(f"{path / RECORD}: {error}") from None
    if record.calibration is not None:
        for horizon in record.model.horizons:
            found_margins = record.calibration.get(str(horizon), ())
            if len(found_margins) != 2 or not all(map(math.isfinite, found_margins)):
                raise BundleError(
                    f"{path / RECORD}: calibration: expected two numbers for horizon {horizon}; train again"
                )
    if memory != record.memory:
        raise BundleError(f"{path / RECORD}: its features need {memory} bars, and it says {record.memory}; train again")
    if parts:
        loaded = []
        for position, model in enumerate(parts):
            folder = f"{member_folder(position)}/"
            inner = {name.removeprefix(folder): sha for name, sha in record.files.items() if name.startswith(folder)}
            loaded.append(_load(path / folder, _Place(model=model, files=inner)))
        return Bundle(path, record, (), None, members=tuple(loaded))
    for name in (WEIGHTS, CURVE):
        if name not in own:
            raise BundleError(f"{path / name}: the bundle lacks this file; run `nextbar train CONFIG --force`")
    features = parse_features(record.model.features, close_only=record.close_only)
    with torch.device("meta"):  # takes no memory, however large the record says it is
        outline = build_network(record.model)
    weights = _fitting_weights(path / WEIGHTS, own[WEIGHTS], outline)
    with torch.random.fork_rng(devices=()):  # first weights are drawn and thrown away: leave the user's seed alone
        network = build_network(record.model)
    network.load_state_dict(weights)
    try:
        network.load_texts(own)
    except (ValueError, KeyError) as error:
        raise BundleError(f"{path}: what lies beside its weights cannot be read ({error}); train again") from None
    return Bundle(path, record, features, network.eval(), _parse_curve(path / CURVE, own[CURVE]))


def _parts(record: BundleRecord) -> tuple[ModelSection, ...]:
    """The models of a bundle's members: of a walk-forward its own, of an ensemble those that it says; else none."""
    if record.takes_over is not None:
        return (record.model,) * len(record.takes_over)
    return record.model.members if isinstance(record.model, EnsembleConfig) else ()


def _check_files(path: Path, contents: Mapping[str, bytes], hashes: Mapping[str, str]) -> None:
    """That the contents are those that the hashes are of; each has one."""
    for name, content in contents.items():
        found = hashlib.sha256(content).hexdigest()
        expected = hashes.get(name, "none")
        if expected != found:
            raise BundleError(
                f"{path / name}: truncated or edited: expected SHA-256 {expected[:HASH_LENGTH]}, found "
                f"{found[:HASH_LENGTH]}; run `nextbar train CONFIG --force`"
            )


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
            start = opened.read(9)
        # A safetensors file starts with the length of its header, which may look like a pickle's first two bytes.
        safe = start[4:] == b"\0\0\0\0{"
        if file.suffix.lower() in _PICKLE_SUFFIXES or (start.startswith(_PICKLE_STARTS) and not safe):
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
            f"{path}: edited since it was written: expected SHA-256 {str(expected)[:HASH_LENGTH]}, found "
            f"{found[:HASH_LENGTH]}; run `nextbar train CONFIG --force`"
        )
    try:
        return BundleRecord.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(
            f"{path}: written by another version of nextbar: {where}: {first['msg'].lower()}; train again"
        ) from None


def _fitting_weights(path: Path, content: bytes, network: Network) -> dict[str, torch.Tensor]:
    """The tensors of a file; a BundleError where they are not those of the network."""
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
    for name, value in network.state_dict().items():
        if weights[name].dtype != value.dtype:
            raise BundleError(f"{path}: {name}: expected {value.dtype}, found {weights[name].dtype}; train again")
        if not torch.isfinite(weights[name]).all():
            raise BundleError(f"{path}: {name}: holds numbers that are not finite; train again")
    return weights

"""The files of a scoring bundle: canonical JSON, hashes, and reading them back into a `BundleSpec`.

Scoring and writing a whole bundle belong to `bundle`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from finrisk_assets.scoring.spec import Amount, BundleError, BundleSpec, Calibration, Component, Linear, Rows, Trees
from schemas.features import Feature

FORMAT = 1
MANIFEST = "bundle.json"
GOLDEN = "golden.json"
T = TypeVar("T")


def manifest_of(spec: BundleSpec) -> dict[str, Any]:
    def plainly(part: Component, name: str) -> dict[str, Any]:
        if isinstance(part, Linear):
            return {"kind": "linear"} | asdict(part)
        return {"kind": "trees", "file": f"trees-{name}.json", "weight": part.weight, "fills": part.fills}

    head: dict[str, Any] = {}
    if spec.amount is not None:
        one = spec.amount
        spread = None if one.spread is None else plainly(one.spread, "spread")
        bounds = {"scale": one.scale, "low": one.low, "high": one.high, "level": one.level}
        head = {"amount": {"component": plainly(one.component, "amount"), "spread": spread} | bounds}
    if spec.approved:
        head["approved"] = {name: list(values) for name, values in spec.approved.items()}
    plain = ("name", "domain", "source", "seed", "data_sha256", "code_sha256", "intercept", "training_window", "reference")
    return {
        "format": FORMAT,
        **{key: getattr(spec, key) for key in plain},
        "features": [asdict(feature) for feature in spec.features],
        "windows": list(spec.windows),
        "components": [plainly(part, str(at)) for at, part in enumerate(spec.components)],
        "calibration": asdict(spec.calibration),
        "thresholds": dict(spec.thresholds),
        "metrics": dict(spec.metrics),
        "libraries": dict(spec.libraries),
        **head,
    }


def canonical_json(document: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError as error:
        raise BundleError(f"a bundle holds finite numbers only: {error}") from error
    return (text + "\n").encode()


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's; a float32 in its shortest form."""
    if isinstance(value, np.float32):
        return shortest_float(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not for JSON")


def shortest_float(value: np.float32) -> float:
    """The float64 that reads shortest (0.1, not 0.10000000149011612) and is the same float32."""
    return float(str(value))


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# Reading -----------------------------------------------------------------------------------------------------------------------


def read_files(folder: Path, version: str | None) -> tuple[str, BundleSpec, Mapping[str, Any]]:
    """The hash, the spec and the golden set of a folder, with every named file's hash checked."""
    file = folder / MANIFEST
    content = _content(file)
    sha256 = sha256_of(content)
    if version is not None and (len(version) < 12 or not sha256.startswith(version)):
        raise BundleError(f"{file}: is version {sha256[:12]}, not {version} as asked")
    document = _parse(content, file)
    if document.get("format") != FORMAT:
        raise BundleError(f"{file}: format {document.get('format')!r} is unknown here, which reads format {FORMAT}")
    contents: dict[str, bytes] = {}
    for name, digest in take_field(document, "files", dict, file).items():
        contents[name] = _content(_inside(folder, name))
        if sha256_of(contents[name]) != digest:
            raise BundleError(f"{folder / name}: its SHA-256 is not the one in {MANIFEST}; was it changed after training?")
    if GOLDEN not in contents:
        raise BundleError(f"{file}: names no {GOLDEN}, so nothing tells whether it scores as trained")
    golden = _parse(contents[GOLDEN], folder / GOLDEN)
    window, reference = document.get("training_window"), document.get("reference")
    try:
        spec = BundleSpec(
            features=tuple(Feature(**feature) for feature in take_field(document, "features", list, file)),
            windows=tuple(map(dict, take_field({"windows": []} | document, "windows", list, file))),
            components=tuple(_component(part, contents, file) for part in take_field(document, "components", list, file)),
            calibration=Calibration(**take_field(document, "calibration", dict, file)),
            intercept=float(take_field(document, "intercept", float, file)),
            golden_rows=read_golden_rows(golden, folder / GOLDEN),
            seed=take_field(document, "seed", int, file),
            training_window=None if window is None else (str(window[0]), str(window[1])),
            reference=None if reference is None else tuple(map(float, reference)),
            amount=_amount(document["amount"], contents, file) if "amount" in document else None,
            approved={
                name: tuple(map(float, values)) for name, values in take_field({"approved": {}} | document, "approved", dict, file).items()
            },
            thresholds=take_field(document, "thresholds", dict, file),
            metrics=take_field(document, "metrics", dict, file),
            libraries=take_field(document, "libraries", dict, file),
            name=take_field(document, "name", str, file),
            domain=take_field(document, "domain", str, file),
            source=take_field(document, "source", str, file),
            data_sha256=take_field(document, "data_sha256", str, file),
            code_sha256=take_field(document, "code_sha256", str, file),
        )
    except BundleError:
        raise
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise BundleError(f"{file}: {first_line(error)}") from error
    return sha256, spec, golden


def _component(part: Mapping[str, Any], contents: Mapping[str, bytes], file: Path) -> Component:
    settings: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in part.items()}
    kind = settings.pop("kind", None)
    if kind == "linear":
        return Linear(**settings)
    if kind == "trees":
        name = settings.pop("file", None)
        if name not in contents:
            raise BundleError(f"{file}: a component's file {name!r} is not among the files with a hash")
        return Trees(model=contents[name], **settings)
    raise BundleError(f"{file}: component of kind {kind!r} is unknown here; linear and trees are known")


def _amount(head: Mapping[str, Any], contents: Mapping[str, bytes], file: Path) -> Amount:
    spread = head.get("spread")
    return Amount(
        component=_component(take_field(head, "component", dict, file), contents, file),
        scale=take_field(head, "scale", str, file),
        low=float(take_field(head, "low", float, file)),
        high=float(take_field(head, "high", float, file)),
        spread=None if spread is None else _component(spread, contents, file),
        level=float(take_field(head, "level", float, file)),
    )


def read_golden_rows(golden: Mapping[str, Any], file: Path) -> Rows:
    try:
        return np.array(take_field(golden, "rows", list, file), np.float32)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise BundleError(f"{file}: its rows are not a table of numbers") from error


def _inside(folder: Path, name: str) -> Path:
    """The file of that name, unless the name or a link leads out of the folder."""
    path = folder / name
    if Path(name).name != name or "\\" in name or path.resolve().parent != folder.resolve():
        raise BundleError(f"{folder / MANIFEST}: the file {name!r} lies outside the bundle's folder")
    return path


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{file}: the file is missing") from error
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error


def _parse(content: bytes, file: Path) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise BundleError(f"{file}: is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BundleError(f"{file}: is not a JSON object")
    return document


def take_field(document: Mapping[str, Any], key: str, kind: type[T], file: Path) -> T:
    value = document.get(key)
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind):
        raise BundleError(f"{file}: {key!r} is missing or is not {kind.__name__}")
    return value


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

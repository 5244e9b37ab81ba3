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

from finrisk_assets.scoring.feature_values import FeatureValues, LevelWeights
from finrisk_assets.scoring.score_curve import ScoreCurve
from finrisk_assets.scoring.spec import Amount, BundleError, BundleSpec, Calibration, Component, Linear, Reference, Rows, Trees
from schemas.features import Feature

FORMAT = 2
MANIFEST = "bundle.json"
GOLDEN = "golden.json"
T = TypeVar("T")


def build_manifest_document(spec: BundleSpec) -> dict[str, Any]:
    """Return the content of ``bundle.json`` but for the hashes of the files."""

    def component_document(part: Component, name: str) -> dict[str, Any]:
        if isinstance(part, Linear):
            return {"kind": "linear"} | asdict(part)
        return {"kind": "trees", "file": f"trees-{name}.json", "weight": part.weight, "fills": part.fills}

    optional_parts: dict[str, Any] = {}
    if spec.amount is not None:
        amount = spec.amount
        spread = None if amount.spread is None else component_document(amount.spread, "spread")
        bounds = {"scale": amount.scale, "low": amount.low, "high": amount.high, "level": amount.level}
        optional_parts = {"amount": {"component": component_document(amount.component, "amount"), "spread": spread} | bounds}
    if spec.approved:
        optional_parts["approved"] = {name: list(values) for name, values in spec.approved.items()}
    if spec.references:
        optional_parts["references"] = [asdict(reference) for reference in spec.references]
    if spec.score_curve is not None:
        optional_parts["score_curve"] = asdict(spec.score_curve)
    if spec.loss_curve is not None:
        optional_parts["loss_curve"] = asdict(spec.loss_curve)
    if spec.values:
        optional_parts["values"] = [asdict(values) for values in spec.values]
        optional_parts["reference_group"] = spec.reference_group
    if spec.categories:
        optional_parts["categories"] = {name: asdict(weights) for name, weights in spec.categories.items()}
    plain_fields = ("name", "domain", "source", "seed", "data_sha256", "code_sha256", "intercept", "training_window", "reference")
    return {
        "format": FORMAT,
        **{key: getattr(spec, key) for key in plain_fields},
        "features": [asdict(feature) for feature in spec.features],
        "windows": list(spec.windows),
        "components": [component_document(part, str(at)) for at, part in enumerate(spec.components)],
        "calibration": asdict(spec.calibration),
        "thresholds": dict(spec.thresholds),
        "metrics": dict(spec.metrics),
        "libraries": dict(spec.libraries),
        **optional_parts,
    }


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON whose bytes depend on its values alone.

    Raises
    ------
    BundleError
        For a number that is not finite.
    """
    try:
        text = json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False, default=_to_json_number)
    except ValueError as error:
        raise BundleError(f"a bundle holds finite numbers only: {error}") from error
    return (text + "\n").encode()


def _to_json_number(value: Any) -> Any:
    """Return a numpy number as Python's, a float32 in its shortest form."""
    if isinstance(value, np.float32):
        return shortest_float(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not for JSON")


def shortest_float(value: np.float32) -> float:
    """Return the float64 with the shortest text (0.1, not 0.10000000149011612) that is the same float32."""
    return float(str(value))


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of some bytes, as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


# Reading -----------------------------------------------------------------------------------------------------------------------


def read_files(folder: Path, version: str | None) -> tuple[str, BundleSpec, Mapping[str, Any]]:
    """Return the hash, the specification and the golden set of a folder, after checking the hash of every named file.

    Raises
    ------
    BundleError
        Names the file and what is wrong with it.
    """
    file = folder / MANIFEST
    content = _read_bytes(file)
    sha256 = sha256_of(content)
    if version is not None and (len(version) < 12 or not sha256.startswith(version)):
        raise BundleError(f"{file}: is version {sha256[:12]}, not {version} as requested")
    document = _parse_object(content, file)
    if document.get("format") != FORMAT:
        raise BundleError(f"{file}: format {document.get('format')!r} is unknown here, which reads format {FORMAT}: train the model again")
    contents: dict[str, bytes] = {}
    for name, digest in take_field(document, "files", dict, file).items():
        contents[name] = _read_bytes(_path_inside(folder, name))
        if sha256_of(contents[name]) != digest:
            raise BundleError(f"{folder / name}: its SHA-256 is not the one in {MANIFEST}; was it changed after training?")
    if GOLDEN not in contents:
        raise BundleError(f"{file}: names no {GOLDEN}, so its scores cannot be checked; train the model again")
    golden = _parse_object(contents[GOLDEN], folder / GOLDEN)
    window, reference = document.get("training_window"), document.get("reference")
    try:
        spec = BundleSpec(
            features=tuple(Feature(**feature) for feature in take_field(document, "features", list, file)),
            windows=tuple(map(dict, take_field({"windows": []} | document, "windows", list, file))),
            components=tuple(_parse_component(part, contents, file) for part in take_field(document, "components", list, file)),
            calibration=Calibration(**take_field(document, "calibration", dict, file)),
            intercept=float(take_field(document, "intercept", float, file)),
            golden_rows=read_golden_rows(golden, folder / GOLDEN),
            seed=take_field(document, "seed", int, file),
            training_window=None if window is None else (str(window[0]), str(window[1])),
            reference=None if reference is None else tuple(map(float, reference)),
            amount=_parse_amount(document["amount"], contents, file) if "amount" in document else None,
            approved={
                name: tuple(map(float, values)) for name, values in take_field({"approved": {}} | document, "approved", dict, file).items()
            },
            references=tuple(
                Reference(float(part["cutoff"]), tuple(map(float, part["contributions"]))) for part in document.get("references", ())
            ),
            score_curve=_parse_score_curve(document["score_curve"]) if "score_curve" in document else None,
            loss_curve=_parse_score_curve(document["loss_curve"]) if "loss_curve" in document else None,
            values=tuple(FeatureValues(**values) for values in document.get("values", ())),
            reference_group=str(document.get("reference_group", "others")),
            categories={name: LevelWeights(**weights) for name, weights in document.get("categories", {}).items()},
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


def _parse_component(part: Mapping[str, Any], contents: Mapping[str, bytes], file: Path) -> Component:
    arguments: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in part.items()}
    kind = arguments.pop("kind", None)
    if kind == "linear":
        return Linear(**arguments)
    if kind == "trees":
        name = arguments.pop("file", None)
        if name not in contents:
            raise BundleError(f"{file}: a component's file {name!r} is not among the files with a hash")
        return Trees(model=contents[name], **arguments)
    raise BundleError(f"{file}: component of kind {kind!r} is unknown here; linear and trees are known")


def _parse_amount(document: Mapping[str, Any], contents: Mapping[str, bytes], file: Path) -> Amount:
    spread = document.get("spread")
    return Amount(
        component=_parse_component(take_field(document, "component", dict, file), contents, file),
        scale=take_field(document, "scale", str, file),
        low=float(take_field(document, "low", float, file)),
        high=float(take_field(document, "high", float, file)),
        spread=None if spread is None else _parse_component(spread, contents, file),
        level=float(take_field(document, "level", float, file)),
    )


def _parse_score_curve(document: Mapping[str, Any]) -> ScoreCurve:
    arguments: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}
    return ScoreCurve(**arguments)


def read_golden_rows(golden: Mapping[str, Any], file: Path) -> Rows:
    """Return the golden rows, float32, NaN where missing.

    Raises
    ------
    BundleError
        If the rows are missing or are not a table of numbers.
    """
    try:
        return np.array(take_field(golden, "rows", list, file), np.float32)  # None becomes NaN
    except (TypeError, ValueError) as error:
        raise BundleError(f"{file}: its rows are not a table of numbers") from error


def _path_inside(folder: Path, name: str) -> Path:
    """Return the file of that name, or raise if the name or a link leads out of the folder."""
    path = folder / name
    if Path(name).name != name or "\\" in name or path.resolve().parent != folder.resolve():
        raise BundleError(f"{folder / MANIFEST}: the file {name!r} lies outside the bundle's folder")
    return path


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{file}: the file is missing") from error
    except OSError as error:
        raise BundleError(f"{file}: cannot be read: {error.strerror}") from error


def _parse_object(content: bytes, file: Path) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise BundleError(f"{file}: is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BundleError(f"{file}: is not a JSON object")
    return document


def take_field(document: Mapping[str, Any], key: str, kind: type[T], file: Path) -> T:
    """Return a field of a document.

    Raises
    ------
    BundleError
        If the field is missing or of another type.
    """
    value = document.get(key)
    if kind is float and type(value) is int:
        value = float(value)
    if not isinstance(value, kind):
        raise BundleError(f"{file}: {key!r} is missing or is not {kind.__name__}")
    return value


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, or the name of its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

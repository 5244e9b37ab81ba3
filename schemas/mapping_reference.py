"""The reference of every key of a mapping file, written from the models that check it: docs/mapping-keys.md."""

from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.ledger import TABLES
from schemas.mapping import ColumnMap, ExtraColumn, FeatureMap, Mapping, SplitMap, TableMap

_HEAD = """# Keys of a mapping

Written by `finrisk import --keys > docs/mapping-keys.md`; never edited by hand. [own-data.md](own-data.md) is the tutorial,
[sources.md](sources.md#your-own-files) has an example.
"""
_SECTIONS: tuple[tuple[str, type[BaseModel], type[BaseModel] | None, str], ...] = (
    ("The file", Mapping, None, ""),
    ("A table", TableMap, None, "Below `tables.<table>`."),
    ("A stated test set", SplitMap, None, "Below `split` of the loans."),
    (
        "A column",
        ColumnMap,
        None,
        "Below `columns.<column>`, and in each entry of `extra`. Exactly one of `from`, `value`, `sign_of`, `row_number`, `id`, and "
        "`debit` with `credit` says where it comes from. `amount: Betrag` is short for `amount: {from: Betrag}`.",
    ),
    ("A column of your own", ExtraColumn, ColumnMap, "In each entry of `extra`, beside the keys of a column."),
    ("A feature", FeatureMap, None, "Below `feature`. Sentences are those of a decision's reasons."),
)


def write_reference() -> str:
    """Return the reference as Markdown: a table of keys for each part of the file, and the ledger's columns."""
    parts = [_HEAD]
    for title, model, base, text in _SECTIONS:
        rows = [
            f"| `{field.alias or name}` | {_values(field)} | {_default(field)} | {field.description} |"
            for name, field in model.model_fields.items()
            if base is None or name not in base.model_fields
        ]
        parts.append(
            "\n".join(
                [f"## {title}\n", *([f"{text}\n"] if text else []), "| key | value | default | meaning |", "|---|---|---|---|", *rows, ""]
            )
        )
    parts.append("## The ledger's columns\n\nA column that is required has to be in `columns`.\n")
    for table in TABLES.values():
        rows = [
            f"| `{column.name}` | {column.dtype} | {'' if column.nullable or column.is_optional else 'required'} | {column.description} |"
            for column in table.columns
        ]
        parts.append("\n".join([f"### {table.name}\n", "| column | type | | meaning |", "|---|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is True:
        return "`true`"
    return f"`{value}`" if value else ""


def _values(field: FieldInfo) -> str:
    """Return the kind of a key's value in words."""
    kinds = [_kind(part) for part in _parts(field.annotation)]
    return " or ".join(dict.fromkeys(kind for kind in kinds if kind))


def _parts(annotation: Any) -> tuple[Any, ...]:
    is_union = get_origin(annotation) not in (None, tuple, dict, list, Literal)
    return tuple(part for inner in get_args(annotation) for part in _parts(inner)) if is_union else (annotation,)


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" if value != "" else "nothing" for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        return "a list"
    if get_origin(annotation) is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "keys"
    return {bool: "true, false", int: "a whole number", float: "a number", str: "a text"}.get(annotation, "")

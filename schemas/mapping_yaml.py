"""The YAML of a mapping file: scalars as YAML 1.2 reads them, codes as the file writes them.

YAML 1.1, which PyYAML reads by itself, turns Norway's ``NO`` into false and the category ``0742`` into 482.
"""

import re
from typing import Any

CODE_KEYS = frozenset({"values", "missing", "value", "otherwise", "allowed", "contains"})
"""Keys below which every scalar is text, but the words true and false."""

_BOOLEANS = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_NULLS = ("", "~", "null", "Null", "NULL")
_WHOLE_NUMBER = r"[-+]?(?:0|[1-9][0-9]*)"
_NUMBER = r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"


class RepeatedKeyError(ValueError):
    """An error for a key that a mapping holds twice: YAML would keep the last without a word."""

    def __init__(self, key: str, line: int) -> None:
        super().__init__(f"line {line}: {key} is there twice; keep one")


def load_mapping_yaml(text: str) -> Any:
    """Return the data of a YAML document.

    Raises
    ------
    RepeatedKeyError
        If a mapping has a key twice.
    yaml.YAMLError
        If the text is not YAML.
    """
    import yaml

    root = yaml.compose(text, yaml.SafeLoader)
    return None if root is None else _build(root, is_code=False)


def _build(node: Any, *, is_code: bool) -> Any:
    if node.id == "scalar":
        return _read_scalar(node, is_code=is_code)
    if node.id == "sequence":
        return [_build(item, is_code=is_code) for item in node.value]
    data: dict[Any, Any] = {}
    merged: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            parts = value_node.value if value_node.id == "sequence" else [value_node]
            for part in parts:
                merged = {**_build(part, is_code=is_code), **merged}
            continue
        key = _build(key_node, is_code=is_code) if is_code else key_node.value
        if key in data:
            raise RepeatedKeyError(str(key_node.value), key_node.start_mark.line + 1)
        data[key] = _build(value_node, is_code=is_code or key in CODE_KEYS)
    return {**merged, **data}


def _read_scalar(node: Any, *, is_code: bool) -> Any:
    """Return a scalar: text where it is quoted or a code, else what YAML 1.2 reads in it, but 007 is text."""
    text: str = node.value
    if node.style in ("'", '"', "|", ">"):
        return text
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if text == "" or (text in _NULLS and not is_code):
        return None
    if is_code:
        return text
    if re.fullmatch(_WHOLE_NUMBER, text):
        return int(text)
    return float(text) if re.fullmatch(_NUMBER, text) else text

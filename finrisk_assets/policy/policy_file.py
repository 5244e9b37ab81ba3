"""The file of a decision policy: reading and checking, the policy in effect, and the page that documents each key."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.payment_rules import RULE_KINDS

if TYPE_CHECKING:
    from finrisk_assets.settings import Settings

DEFAULT_POLICY = Path(__file__).with_name("default_policy.yaml")
"""The shipped policy."""


class PolicyError(ValueError):
    """A policy that cannot be used: one line for each fault, with the file's line, the key and the fix."""


def load_policy(settings: "Settings") -> Policy:
    """Return the policy in effect: that of FINRISK_POLICY, else the one that a ``mapped`` source carries, else the shipped one.

    Raises
    ------
    PolicyError
        As of `read_policy`.
    """
    return read_policy(find_policy_file(settings))


def find_policy_file(settings: "Settings") -> Path:
    """Return the file of the policy in effect."""
    if settings.policy is not None:
        return settings.policy
    if settings.source == "mapped" and settings.mapping is not None:
        from schemas.mapping import read_mapping

        own = read_mapping(settings.mapping).policy
        if own:
            return settings.mapping.parent / own
    return DEFAULT_POLICY


def read_policy(path: Path) -> Policy:
    """Read and check a policy file.

    Raises
    ------
    PolicyError
        If the file is missing, is not YAML, or is invalid: every fault with its line, its key and the fix.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise PolicyError(f"the policy {path} cannot be read: {error.strerror}; set FINRISK_POLICY to its path") from None
    except UnicodeDecodeError:
        raise PolicyError(f"{path} is not text: save it as UTF-8") from None
    return parse_policy(text, str(path))


def parse_policy(text: str, name: str) -> Policy:
    """Check the text of a policy; `name` stands for the file in messages.

    Raises
    ------
    PolicyError
        As of `read_policy`.
    """
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast; it reads the same
    try:
        root, data = yaml.compose(text, loader), yaml.load(text, loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}," if mark else ""
        raise PolicyError(f"{name}{where} is not YAML: {getattr(error, 'problem', None) or 'correct its punctuation'}") from None
    except (ValueError, OverflowError, RecursionError):  # a date that there is not, a number without end, half a character
        raise PolicyError(f"{name} has a value that YAML cannot read: correct its dates, numbers and characters") from None
    if not isinstance(data, dict):
        raise PolicyError(f"{name} is not a mapping of keys: copy the shipped policy, which `finrisk policy show` prints")
    faults = [f"{name}, line {line}: {key} is there twice; keep one" for line, key in _repeated_keys(root)]
    try:
        policy = Policy.model_validate(data)
    except ValidationError as error:
        faults += [f"{name}, line {_line(root, detail['loc'])}: {_describe(detail)}" for detail in error.errors()]
    if faults:
        raise PolicyError("\n".join(dict.fromkeys(faults)))
    return policy


@cache
def default_policy() -> Policy:
    """Return the shipped policy."""
    return read_policy(DEFAULT_POLICY)


def document_keys(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield dotted key, value as written and comment of each line of a policy file; the value of a section is empty."""
    comment: list[str] = []
    path: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("# "))
            continue
        found = re.fullmatch(r"(\s*)([a-z_]+):\s*(.*)", line)
        if found:
            path[len(found[1]) // 2 :] = [found[2]]
            yield ".".join(path), found[3], " ".join(comment)
        comment = []


def _describe(detail: Any) -> str:
    """Describe a Pydantic error as a key and a sentence with the fix."""
    # Pydantic puts the kind of a rule into its location, as if it were a key.
    place = ".".join(str(part) for part in detail["loc"] if part not in RULE_KINDS) or "the file"
    if detail["type"] == "extra_forbidden":
        return f"{place}: there is no such key{_suggest(str(detail['loc'][-1]), _fields_at(detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"{place}: is missing; add it, as the shipped policy has it"
    message = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    given = detail.get("input")
    shown = f" is {given!r}:" if isinstance(given, str | int | float) else ""
    return f"{place}{shown} {message}" if shown else f"{place}: {message}"


def _fields_at(loc: Sequence[str | int]) -> list[str]:
    """Return the keys that are allowed at a location."""
    model: Any = Policy
    for part in loc:
        if part in RULE_KINDS:
            model = RULE_KINDS[str(part)]
        elif isinstance(part, str):
            model = model.model_fields[part].annotation
        arguments = getattr(model, "__args__", ())
        model = next((one for one in arguments if isinstance(one, type) and issubclass(one, BaseModel)), model)
    return list(model.model_fields)


def _suggest(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, 1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"


def _line(root: Any, loc: Sequence[str | int]) -> int:
    """Return the line of a location, from 1; of a missing key, that of its section."""
    node, line = root, root.start_mark.line
    for part in loc:
        if part in RULE_KINDS:
            continue
        if isinstance(part, int) and isinstance(node.value, list) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
            continue
        pair = next(((key, value) for key, value in _pairs(node) if key.value == part), None)
        if pair is None:
            break
        line, node = pair[0].start_mark.line, pair[1]
    return int(line) + 1


def _pairs(node: Any) -> list[Any]:
    return node.value if node.id == "mapping" else []


def _repeated_keys(node: Any) -> Iterator[tuple[int, str]]:
    """Yield line and name of each key that a mapping holds twice: YAML would keep the last without a word."""
    seen: set[str] = set()
    for key, value in _pairs(node):
        if key.value in seen:
            yield key.start_mark.line + 1, key.value
        seen.add(key.value)
        yield from _repeated_keys(value)

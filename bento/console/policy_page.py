"""The page of the policy: each value in words, and what another file would change."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import Response

from bento.console.console_context import Console
from bento.console.presentation.rendering import build_csv
from finrisk_assets.policy import policy_file
from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.policy_file import PolicyError, parse_policy

_SHIPPED = Path(policy_file.__file__).with_name("default_policy.yaml")
_KEY = re.compile(r"^( *)([a-z_]+):")
_MAX_POLICY_BYTES = 200_000


async def show_policy(console: Console, request: Request) -> Response:
    """Return the policy in effect, in words."""
    policy = await console.get(request, "/v1/policy")
    rows = _explain(Policy.model_validate(policy["document"]))
    if request.query_params.get("format") == "csv":
        return build_csv("policy", ("key", "value", "meaning"), rows)
    return console.page(request, "policy.html", policy=policy, sections=_group(rows), changes=None, fault="", other=None)


async def compare_policy(console: Console, request: Request, form: FormData) -> Response:
    """Compare the policy in effect with an uploaded file: each key that differs, in words."""
    policy = await console.get(request, "/v1/policy")
    now = Policy.model_validate(policy["document"])
    upload, changes, fault, other = form.get("policy"), None, "", None
    if not isinstance(upload, UploadFile) or not upload.filename:
        fault = "No file was chosen. Choose the YAML file of another policy."
    else:
        try:
            content = await upload.read(_MAX_POLICY_BYTES)
            other = parse_policy(content.decode("utf-8"), "the file")
            changes = _list_changes(now, other)
        except UnicodeDecodeError:
            fault = "The file is no text. Choose the YAML file of a policy."
        except PolicyError as error:
            fault = str(error)
    sections = _group(_explain(now))
    return console.page(
        request, "policy.html", 422 if fault else 200, policy=policy, sections=sections, changes=changes, fault=fault, other=other
    )


def _explain(policy: Policy) -> list[dict[str, Any]]:
    """Return each value of a policy with its meaning."""
    meanings = read_meanings()
    return [{"key": key, "value": _write(value), "meaning": meanings.get(key, "")} for key, value in policy.flatten().items()]


def _list_changes(now: Policy, other: Policy) -> list[dict[str, Any]]:
    before, after, meanings = now.flatten(), other.flatten(), read_meanings()
    return [
        {"key": key, "before": _write(before.get(key)), "after": _write(after.get(key)), "meaning": meanings.get(key, "")}
        for key in [*before, *(key for key in after if key not in before)]
        if before.get(key) != after.get(key)
    ]


@cache
def read_meanings() -> dict[str, str]:
    """Return each key of a policy with the comment that explains it in the shipped file."""
    meanings: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in _SHIPPED.read_text(encoding="utf-8").splitlines():
        match = _KEY.match(line)
        if line.strip().startswith("#"):
            comment.append(line.strip().lstrip("# "))
        elif match:
            indent = len(match[1])
            path = [(depth, name) for depth, name in path if depth < indent] + [(indent, match[2])]
            meanings[".".join(name for _, name in path)] = " ".join(comment)
            comment = []
        else:
            comment = []
    return meanings


def _group(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the rows by the first part of their keys."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        section = row["key"].rpartition(".")[0]
        groups.setdefault(section.partition(".")[0] or "policy", []).append({**row, "short": row["key"].partition(".")[2] or row["key"]})
    return groups


def _write(value: Any) -> str:
    """Return a value of a policy as its file would write it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return (
            "; ".join(
                ", ".join(f"{name} {_write(part)}" for name, part in item.items()) if isinstance(item, dict) else str(item)
                for item in value
            )
            or "none"
        )
    return str(value)

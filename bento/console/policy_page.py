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
_MAX_POLICY_BYTES = 100_000
PREVIEW = "/v1/policy/preview"


async def show_policy(console: Console, request: Request) -> Response:
    """Return the policy in effect, in words."""
    policy = await console.get(request, "/v1/policy")
    rows = _explain(Policy.model_validate(policy["document"]))
    if request.query_params.get("format") == "csv":
        return build_csv("policy", ("key", "value", "meaning"), rows)
    return console.page(request, "policy.html", policy=policy, sections=_group(rows), changes=None, fault="", other=None, pasted="")


async def compare_policy(console: Console, request: Request, form: FormData) -> Response:
    """Compare the policy in effect with an uploaded file or a pasted text: each key that differs, and what it would have decided."""
    policy = await console.get(request, "/v1/policy")
    now = Policy.model_validate(policy["document"])
    upload, pasted = form.get("policy"), str(form.get("pasted", "")).strip()
    changes, fault, other, preview, preview_fault = None, "", None, None, None
    has_file = isinstance(upload, UploadFile) and bool(upload.filename)
    try:
        text = (await upload.read(_MAX_POLICY_BYTES)).decode("utf-8") if isinstance(upload, UploadFile) and has_file else pasted
        if not text:
            raise PolicyError("No file was chosen. Choose the YAML file of another policy, or paste its text.")
        other = parse_policy(text, "the file" if has_file else "the text")
        changes = _list_changes(now, other)
        if changes:
            preview, preview_fault = await console.try_post(request, PREVIEW, {"policy": text})
    except UnicodeDecodeError:
        fault = "The file is no text. Choose the YAML file of a policy."
    except PolicyError as error:
        fault = str(error)
    return console.page(
        request,
        "policy.html",
        422 if fault else 200,
        policy=policy,
        sections=_group(_explain(now)),
        changes=changes,
        fault=fault,
        other=other,
        pasted=pasted,
        preview=preview,
        preview_fault=preview_fault,
    )


def _explain(policy: Policy) -> list[dict[str, Any]]:
    """Return each value of a policy with its meaning."""
    meanings = read_meanings()
    return [{"key": key, "value": _write(value), "meaning": meanings.get(key, "")} for key, value in policy.flatten().items()]


def _list_changes(now: Policy, other: Policy) -> list[dict[str, Any]]:
    before, after, meanings = _flatten(now), _flatten(other), read_meanings()
    return [
        {"key": key, "before": _write(before.get(key)), "after": _write(after.get(key)), "meaning": meanings.get(key, "")}
        for key in [*before, *(key for key in after if key not in before)]
        if before.get(key) != after.get(key)
    ]


def _flatten(policy: Policy) -> dict[str, Any]:
    """Return each value of a policy by its key; a rule on transactions by its name, as one value."""
    values = policy.flatten()
    rules = values.pop("transaction_anomaly.rules")
    return values | {f"transaction_anomaly.rules.{rule['name']}": [rule] for rule in rules}


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

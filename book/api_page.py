"""The page of all routes and of their types, from the OpenAPI document."""

from collections.abc import Mapping
from typing import Any

from bento.access.roles import ANY_ROLE, OPEN, ROUTES
from bento.service import FinRisk
from bento.web.api_page.route_pages import complete_document
from bento.web.openapi import build_app, build_document
from book.markdown import format_page, format_table


def write_api() -> str:
    """Return the page of all routes of the OpenAPI document, and of the types of their requests and answers."""
    document = complete_document(build_document(build_app(), FinRisk, {}, {}), has_lock=True)
    callers = {(route.method.lower(), route.path): route.roles for route in ROUTES}
    words = {OPEN: "everybody", ANY_ROLE: "any role"}
    lines = [
        "",
        "A running service has the same as a page at `/docs` and as a document at `/openapi.json`, with examples of its own models.",
        "[The service](../service.md) says how a request is decided, [access control](../access.md) who may send it. Every failure is an",
        "[`ErrorEnvelope`](#errorenvelope).",
        "",
    ]
    for group in document["tags"]:
        lines += [f"## {group['name'].capitalize()}", "", group["description"], ""]
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if operation["tags"] == [group["name"]]:
                    roles = callers[method, path]
                    lines += _describe_route(method, path, operation, words.get(roles, ", ".join(sorted(roles))))
    lines += ["## Types", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += [f"### {name}", "", " ".join(schema.get("description", "").split()), *_describe_fields(schema)]
    return format_page("API", *lines)


def _describe_route(method: str, path: str, operation: Mapping[str, Any], roles: str) -> list[str]:
    lines = [f"### `{method.upper()} {path}`", "", f"{operation['summary']}.", "", operation["description"], ""]
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    lines.append(f"- Callers: {roles}")
    if "requestBody" in operation:
        lines.append(f"- Request: {_type_of(operation['requestBody']['content']['application/json']['schema'])}")
    lines += [f"- Answer: {_type_of(answer)}", ""]
    parameters = operation.get("parameters", [])
    rows = (
        (f"`{part['name']}`", part["in"], _type_of(part["schema"]), _default(part["schema"], part.get("required", False)),
         part.get("description", part["schema"].get("description", "")))
        for part in parameters if part["in"] != "header"
    )  # fmt: skip
    return [*lines, *format_table(("parameter", "in", "type", "default", "meaning"), rows)]


def _describe_fields(schema: Mapping[str, Any]) -> list[str]:
    required = set(schema.get("required", ()))
    rows = (
        (f"`{name}`", _type_of(field), _default(field, name in required), field.get("description", ""))
        for name, field in schema.get("properties", {}).items()
    )
    return format_table(("field", "type", "default", "meaning"), rows)


def _default(schema: Mapping[str, Any], is_required: bool) -> str:
    if is_required:
        return "required"
    return f"`{schema['default']}`" if schema.get("default") is not None else ""


def _type_of(schema: Mapping[str, Any]) -> str:
    """Return the type of a value in words, with a link where it is a type of its own."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[`{name}`](#{name.lower()})"
    if "anyOf" in schema:
        kinds = dict.fromkeys(_type_of(part) for part in schema["anyOf"])
        return " or ".join(kinds)
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type_of(schema.get('items', {}))}"
    values = schema.get("additionalProperties")
    if schema.get("type") == "object" and isinstance(values, Mapping):
        return f"map to {_type_of(values)}"
    if schema.get("format") == "date-time":
        return "time"
    return str(schema.get("type", "any"))

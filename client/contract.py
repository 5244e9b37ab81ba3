"""The contract that a client was generated from, and the comparison with that of a service."""

import hashlib
import json
from typing import Any

import httpx

WORDS = frozenset({"description", "example", "examples", "operationId", "security", "summary", "tags", "title"})
"""Keys of a document that are for readers, or depend on the models and keys of one service."""


def hash_contract(document: dict[str, Any]) -> str:
    """Return the SHA-256 of an OpenAPI document's routes and types, whatever its words, examples and version are."""
    contract = {"paths": _without_words(document["paths"]), "schemas": _without_words(document["components"]["schemas"])}
    return hashlib.sha256(json.dumps(contract, sort_keys=True).encode()).hexdigest()


def fetch_contract_hash(base_url: str) -> str:
    """Return the hash of the contract of a service; equal to `finrisk_client.CONTRACT_SHA256` where the client is that of the service."""
    return hash_contract(httpx.get(f"{base_url.rstrip('/')}/openapi.json").raise_for_status().json())


def _without_words(part: Any, *, names_fields: bool = False) -> Any:
    """Return a part of a document without words; the keys of `properties` are names of fields, which stay."""
    if isinstance(part, dict):
        return {
            key: _without_words(value, names_fields=key == "properties" and not names_fields)
            for key, value in part.items()
            if names_fields or key not in WORDS
        }
    return [_without_words(item) for item in part] if isinstance(part, list) else part

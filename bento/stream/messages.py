"""Messages of the stream: a transaction as JSON, by the model of `POST /v1/transactions`.

The identifier is required here: Kafka may deliver a message twice, and only the identifier tells a repetition from another transaction.
"""

from typing import Any

from pydantic import ValidationError

from bento.problems import MAX_BODY_BYTES, Problem, invalid_field, invalid_request
from schemas.api import TransactionRequest

DOMAIN = "transaction_anomaly"
"""The domain that decides on the stream's messages."""
MAX_MESSAGE_BYTES = MAX_BODY_BYTES
"""Bytes of a message, as of a request's body."""


def parse_message(value: bytes) -> TransactionRequest | Problem:
    """Return a message as a request, or the problem that makes it a dead letter."""
    if len(value) > MAX_MESSAGE_BYTES:
        return Problem(413, "too_large", f"The message is larger than {MAX_MESSAGE_BYTES:,} bytes.")
    try:
        request = TransactionRequest.model_validate_json(value)
    except ValidationError as error:
        errors = error.errors(include_context=False, include_input=False, include_url=False)
        if any(each["type"] == "json_invalid" for each in errors):
            return Problem(400, "malformed_json", "The message is not JSON.")
        return invalid_request(errors)
    if request.transaction_id is None:
        return invalid_field("transaction_id", "This field is required in a message.")
    return request


def message_schema() -> dict[str, Any]:
    """Return the JSON schema of a message: that of the request, with its identifier required."""
    schema = TransactionRequest.model_json_schema()
    identifier = dict(schema["properties"]["transaction_id"])
    identifier.pop("default")
    identifier["anyOf"] = [option for option in identifier["anyOf"] if option != {"type": "null"}]
    identifier["description"] = "Your own identifier, required: a message that is delivered or sent twice is decided once."
    return schema | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Transaction",
        "required": [*schema["required"], "transaction_id"],
        "properties": schema["properties"] | {"transaction_id": identifier},
    }

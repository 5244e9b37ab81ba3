"""Bento endpoints that do nothing, served as ours is: what BentoML itself costs."""

import gc
from typing import Any

import bentoml
from pydantic import BaseModel


class Ping(BaseModel):
    number: int


class Pong(BaseModel):
    number: int


_SETTINGS: Any = {
    "http": {"host": "127.0.0.1"},
    "traffic": {"timeout": 5, "max_concurrency": 64},
    "workers": 1,
    "logging": {"access": {"enabled": False}},
}


@bentoml.service(name="empty", **_SETTINGS)
class Empty:
    """Answers with what it is asked."""

    def __init__(self) -> None:
        gc.collect()
        gc.freeze()

    @bentoml.api(route="/empty")
    async def empty(self, ping: Ping, /) -> Pong:
        return Pong(number=ping.number)


@bentoml.service(name="lean", metrics={"enabled": False}, tracing={"excluded_urls": ".*"}, **_SETTINGS)
class Lean(Empty.inner):  # type: ignore[name-defined]
    """The same without BentoML's own metrics and traces, which our service makes itself."""

"""Tests of admission: a slot is taken when the body is there, and a caller has its share alone."""

import asyncio

import pytest

from bento.context import Caller, current_caller
from bento.problems import MAX_BATCH_BYTES, MAX_BODY_BYTES, Problem
from bento.web.admission import MAX_BUFFERED_BYTES, MAX_REQUESTS, Admission, FairShare


def take_all(share: FairShare, holder: str, amount: int = 1) -> int:
    """Take as often as the share allows; return how often."""
    count = 0
    while True:
        try:
            share.take(holder, amount)
        except Problem as refused:
            assert refused.status == 429
            return count
        count += 1


def test_a_holder_alone_takes_half_and_every_other_finds_some():
    share = FairShare(64)

    assert [take_all(share, holder) for holder in "abcd"] == [32, 16, 8, 4]


def test_what_is_given_back_is_free():
    share = FairShare(64)
    for _ in range(3):
        share.take("a", 30)
        share.take("b", 17)
        share.give_back("a", 30)
        share.give_back("b", 17)
    assert take_all(share, "a") == 32


class Client:
    """A client that sends a body when it is told to, and the application that waits for an answer."""

    def __init__(self) -> None:
        self.is_waiting = asyncio.Event()
        self.received: list[bytes] = []
        self.app = Admission(self._answer)

    async def _answer(self, scope, receive, send):
        self.received.append((await receive())["body"])
        await self.is_waiting.wait()

    async def send(self, *chunks: bytes, caller: str = "key:a", path: str = "/v1/cashflow", leaves: bool = False) -> int:
        """Send a body; return 200, or the status of the refusal."""
        current_caller.set(Caller(caller, frozenset()))
        messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        messages.append({"type": "http.disconnect"} if leaves else {"type": "http.request", "body": b"", "more_body": False})

        async def receive():
            await asyncio.sleep(0)
            return messages.pop(0)

        try:
            await self.app({"type": "http", "path": path}, receive, None)
        except Problem as refused:
            return refused.status
        return 200


def test_bodies_that_do_not_end_take_no_slot():
    async def flood():
        client, never = Client(), asyncio.Event()

        async def stall():
            await never.wait()

        current_caller.set(Caller("key:a", frozenset()))
        slow = [asyncio.create_task(client.app({"type": "http", "path": "/v1/cashflow"}, stall, None)) for _ in range(MAX_REQUESTS)]
        await asyncio.sleep(0)
        client.is_waiting.set()
        statuses = [await client.send(b"{}", caller=caller) for caller in ("key:a", "key:b")]
        for task in slow:
            task.cancel()
        return statuses

    assert asyncio.run(flood()) == [200, 200]


def test_a_caller_with_its_share_is_refused_and_others_are_answered():
    async def flood():
        client = Client()
        sent = [asyncio.create_task(client.send(b"{}")) for _ in range(MAX_REQUESTS)]
        other = asyncio.create_task(client.send(b"{}", caller="key:b"))
        while len(client.received) < MAX_REQUESTS // 2 + 1:
            await asyncio.sleep(0)
        client.is_waiting.set()
        return sorted([await task for task in sent]), await other

    statuses, other = asyncio.run(flood())
    assert statuses == [200] * (MAX_REQUESTS // 2) + [429] * (MAX_REQUESTS // 2)
    assert other == 200


@pytest.mark.parametrize(("path", "largest"), [("/v1/cashflow", MAX_BODY_BYTES), ("/v1/cashflow/batch", MAX_BATCH_BYTES)])
def test_a_body_is_read_whole_up_to_its_size(path, largest):
    async def both():
        client = Client()
        client.is_waiting.set()
        statuses = [await client.send(b"a" * (largest - 2), *end, path=path) for end in ((b"b", b"c"), (b"b", b"cd"))]
        return statuses, client.received

    statuses, received = asyncio.run(both())
    assert statuses == [200, 413]
    assert received == [b"a" * (largest - 2) + b"bc"]


def test_the_bodies_of_a_caller_take_half_of_the_memory_at_most():
    async def flood():
        client = Client()
        sends = [asyncio.create_task(client.send(b"a" * MAX_BATCH_BYTES, path="/v1/cashflow/batch")) for _ in range(8)]
        for _ in range(100):
            await asyncio.sleep(0)
        client.is_waiting.set()
        statuses = [await task for task in sends]
        again = await client.send(b"a" * MAX_BATCH_BYTES, path="/v1/cashflow/batch")
        return statuses.count(200), again

    assert asyncio.run(flood()) == (MAX_BUFFERED_BYTES // 2 // MAX_BATCH_BYTES, 200)


def test_a_client_that_leaves_is_not_answered():
    async def leave():
        client = Client()
        client.is_waiting.set()
        return await client.send(b"{", leaves=True), client.received

    assert asyncio.run(leave()) == (200, [])

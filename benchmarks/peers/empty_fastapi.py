"""A FastAPI endpoint that does nothing: what HTTP and two small models cost.

Serve it: ``uvicorn benchmarks.peers.empty_fastapi:app --loop uvloop --http httptools --no-access-log``.
"""

import gc

from fastapi import FastAPI
from pydantic import BaseModel


class Ping(BaseModel):
    number: int


class Pong(BaseModel):
    number: int


app = FastAPI()
gc.collect()
gc.freeze()


@app.post("/empty")
async def empty(ping: Ping) -> Pong:
    return Pong(number=ping.number)

"""What a request asks of the tests' applications: its body's `sample`, or for bodies that are compressed or taken by
another key, the header `x-sample`. Nothing is generated: tokens are `word0 `, `word1 `, …"""

import asyncio
import gzip
import json
import time

from starlette.requests import Request
from starlette.responses import StreamingResponse

PROMPT_TOKENS = 11
CACHED_TOKENS = 3


def dump(value: dict) -> str:
    """As compact as servers send it."""
    return json.dumps(value, separators=(",", ":"))


def sse(value: dict, name: str | None = None, prefix: str = "data: ") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}{prefix}{dump(value)}\n\n".encode()


def ndjson(value: dict) -> bytes:
    return dump(value).encode() + b"\n"


class Plan:
    """One request's."""

    def __init__(self, body: dict, sample: dict):
        self.body, self.sample = body, sample
        self.model = body.get("model", "unnamed")
        self.first = sample.get("ttft_ms", 20) / 1e3
        self.interval = sample.get("interval_ms", 3) / 1e3
        self.tokens = sample.get("tokens", 8)
        self.thoughts = sample.get("thoughts", 0)
        self.padding = "x" * sample.get("padding", 0)

    @classmethod
    async def of(cls, request: Request) -> "Plan":
        raw = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        readable = request.headers.get("content-encoding") in (None, "gzip")
        body = json.loads(raw) if raw and readable else {}
        sample = request.headers.get("x-sample")
        return cls(body, json.loads(sample) if sample else body.get("sample", {}))

    def word(self, index: int) -> str:
        return f"word{index} {self.padding}"

    def text(self) -> str:
        return "".join(map(self.word, range(self.tokens)))

    async def paced(self, count: int, before: float = 0.0):
        """Yields 0, 1, …, each when its time has come."""
        begin = time.monotonic() + before
        for index in range(count):
            await asyncio.sleep(max(0.0, begin + index * self.interval - time.monotonic()))
            yield index

    async def words(self, before: float | None = None):
        async for index in self.paced(self.tokens, self.first if before is None else before):
            yield index, self.word(index)

    async def all_of_it(self) -> None:
        await asyncio.sleep(self.first + self.interval * self.tokens)


def stream(parts, media_type: str = "text/event-stream", headers: dict | None = None) -> StreamingResponse:
    return StreamingResponse(parts, media_type=media_type, headers=headers)

"""An OpenAI-compatible application that generates nothing: it sends what the request's `sample` asks for.

It answers on whatever stack carries it, in the shapes that real servers use: a role delta, content, a reason to
finish, usage, `[DONE]`.
"""

import asyncio
import json
import time

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

PROMPT_TOKENS = 11


def event(value: dict) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


class Plan:
    """What one request asks for."""

    def __init__(self, body: dict, chat: bool):
        sample = body.get("sample", {})
        self.chat = chat
        self.model = body.get("model", "unnamed")
        self.stream = body.get("stream", False)
        self.usage_wanted = (body.get("stream_options") or {}).get("include_usage", False)
        self.first = sample.get("ttft_ms", 10) / 1e3
        self.interval = sample.get("interval_ms", 5) / 1e3
        self.tokens = sample.get("tokens", 8)

    def usage(self) -> dict:
        total = PROMPT_TOKENS + self.tokens
        return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": self.tokens, "total_tokens": total}

    def envelope(self, choices: list) -> dict:
        kind = ("chat.completion.chunk" if self.stream else "chat.completion") if self.chat else "text_completion"
        return {"id": "cmpl-1", "object": kind, "created": 1, "model": self.model, "choices": choices}

    def part(self, text: str, finish: str | None = None) -> dict:
        said = {"delta": {"content": text} if text else {}} if self.chat else {"text": text}
        return self.envelope([{"index": 0, "finish_reason": finish, **said}])

    def role(self) -> dict:
        return self.envelope([{"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": ""}}])

    def whole(self) -> dict:
        text = "word " * self.tokens
        said = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {**self.envelope([{"index": 0, "finish_reason": "stop", **said}]), "usage": self.usage()}

    async def events(self):
        begin = time.monotonic() + self.first
        if self.chat:
            yield event(self.role())
        for index in range(self.tokens):
            await asyncio.sleep(max(0.0, begin + index * self.interval - time.monotonic()))
            yield event(self.part(f"word{index} "))
        yield event(self.part("", "stop"))
        if self.usage_wanted:
            yield event({**self.envelope([]), "usage": self.usage()})
        yield b"data: [DONE]\n\n"


async def answer(request: Request, chat: bool):
    plan = Plan(await request.json(), chat)
    if plan.stream:
        return StreamingResponse(plan.events(), media_type="text/event-stream")
    await asyncio.sleep(plan.first + plan.interval * plan.tokens)
    return JSONResponse(plan.whole())


async def chat_completions(request: Request):
    return await answer(request, True)


async def completions(request: Request):
    return await answer(request, False)


async def health(_: Request):
    return PlainTextResponse("ok")


app = Starlette(
    routes=[
        Route("/v1/chat/completions", chat_completions, methods=["POST"]),
        Route("/v1/completions", completions, methods=["POST"]),
        Route("/health", health),
    ]
)

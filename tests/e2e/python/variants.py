"""Chat completions as they differ from engine to engine: the request's `sample` says how."""

import asyncio
import json
import zlib

from plan import CACHED_TOKENS, PROMPT_TOKENS, Plan, dump, sse, stream
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class Chat(Plan):
    def chunk(self, choices: list, **more) -> dict:
        return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": self.model, "choices": choices, **more}

    def part(self, delta: dict, finish: str | None = None, index: int = 0, **more) -> dict:
        return {"index": index, "delta": delta, "finish_reason": finish, **more}

    def usage(self, output: int) -> dict:
        """The sum of what was generated, its reasoning and what came from a cache."""
        details = {"prompt_tokens_details": {"cached_tokens": CACHED_TOKENS},
                   "completion_tokens_details": {"reasoning_tokens": self.thoughts}}  # fmt: skip
        return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": output, "total_tokens": PROMPT_TOKENS + output, **details}

    async def events(self):
        sample = self.sample
        choices = sample.get("choices", 1)
        yield sse(self.chunk([self.part({"role": "assistant", "content": ""}, index=i) for i in range(choices)]))
        for _ in range(sample.get("pings", 0)):
            await asyncio.sleep(0.01)
            yield b": ping - 2026-01-01 00:00:00\n\n"
        async for index in self.paced(self.thoughts, self.first):
            yield sse(self.chunk([self.part({"reasoning_content": f"thought{index} "})]))
        said = self.thoughts
        async for index, word in self.words():
            if index == sample.get("error_at"):
                yield sse({"error": {"message": "out of memory", "type": "InternalServerError", "code": 500}})
                yield b"data: [DONE]\n\n"
                return
            if sample.get("tool"):
                function = {"arguments": word} if index else {"name": "word0 ", "arguments": ""}
                delta = {"tool_calls": [{"index": 0, "type": "function", "function": function}]}
            else:
                delta = {"content": word}
            more = {}
            if logprobs := sample.get("logprobs"):
                top = [{"token": f"t{i}", "logprob": -1.5, "bytes": [116, 48]} for i in range(logprobs)]
                more["logprobs"] = {"content": [{"token": word, "logprob": -0.5, "bytes": [1], "top_logprobs": top}]}
            for choice in range(choices):
                said += 1
                value = self.chunk([self.part(delta, index=choice, **more)])
                if sample.get("usage") == "continuous":
                    value["usage"] = self.usage(said)
                if sample.get("usage") == "null":
                    # As LMDeploy writes it: with spaces, on every event.
                    yield f'data: {json.dumps({**value, "usage": None})}\n\n'.encode()
                else:
                    yield sse(value)
        finish = "tool_calls" if sample.get("tool") else "length"
        for choice in range(choices):
            yield sse(self.chunk([self.part({}, finish, choice)]))
        if sample.get("usage", "last") in ("last", "continuous", "null"):
            yield sse(self.chunk([], usage=self.usage(said)))
        yield b"data: [DONE]\n\n"

    def whole(self) -> dict:
        message = {"role": "assistant", "content": self.text()}
        choices = [{"index": i, "message": message, "finish_reason": "length"} for i in range(self.sample.get("choices", 1))]
        answer = {**self.chunk(choices), "object": "chat.completion"}
        return {**answer, "usage": self.usage(self.tokens * len(choices))}


async def squeezed(parts):
    """Each part can be unpacked when it comes."""
    packer = zlib.compressobj(wbits=31)
    async for part in parts:
        yield packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


async def chat_completions(request: Request):
    plan = await Chat.of(request)
    packed = {"content-encoding": "gzip"} if plan.sample.get("gzip") else {}
    if plan.body.get("stream", plan.sample.get("stream")):
        parts = plan.events()
        return stream(squeezed(parts) if packed else parts, headers=packed)
    await plan.all_of_it()
    if status := plan.sample.get("status"):
        return JSONResponse({"error": {"message": "no", "code": status}}, status)
    if packed:
        packer = zlib.compressobj(wbits=31)
        body = packer.compress(dump(plan.whole()).encode()) + packer.flush()
        return Response(body, media_type="application/json", headers=packed)
    return JSONResponse(plan.whole())

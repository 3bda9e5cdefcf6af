"""Applications that speak as engines other than OpenAI's do: TGI, SGLang, llama.cpp, Triton, Anthropic, Ollama, and
vLLM's routes that generate nothing. What each sends is written from their documentation."""

from plan import CACHED_TOKENS, PROMPT_TOKENS, Plan, ndjson, sse, stream
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from variants import chat_completions


# TGI: `data:` without a space; the last token event carries the whole text and the details.


def tgi_details(plan: Plan) -> dict:
    return {"finish_reason": "length", "generated_tokens": plan.tokens, "input_length": PROMPT_TOKENS, "seed": None}


async def tgi_events(plan: Plan):
    async for index, word in plan.words():
        if index == plan.sample.get("error_at"):
            yield sse({"error": "Request failed during generation: out of memory", "error_type": "generation"}, None, "data:")
            return
        last = index + 1 == plan.tokens
        token = {"id": 100 + index, "text": word, "logprob": -0.25, "special": False}
        whole = {"generated_text": plan.text() if last else None, "details": tgi_details(plan) if last else None}
        yield sse({"index": index + 1, "token": token, **whole}, None, "data:")


async def tgi_whole(plan: Plan, as_list: bool):
    await plan.all_of_it()
    details = {k: v for k, v in tgi_details(plan).items() if k != "input_length"} | {"prefill": [], "tokens": []}
    answer = {"generated_text": plan.text(), "details": details}
    headers = {"x-generated-tokens": str(plan.tokens), "x-prompt-tokens": str(PROMPT_TOKENS), "x-compute-type": "cpu"}
    return JSONResponse([answer] if as_list else answer, headers=headers)


async def tgi_stream(request: Request):
    return stream(tgi_events(await Plan.of(request)))


async def tgi_root(request: Request):
    plan = await Plan.of(request)
    return stream(tgi_events(plan)) if plan.body.get("stream") else await tgi_whole(plan, True)


# SGLang: each event carries the whole text so far.


def sglang(plan: Plan, text: str, tokens: int) -> dict:
    finish = {"type": "length", "length": plan.tokens} if tokens == plan.tokens else None
    meta = {"id": "1", "finish_reason": finish, "prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens}
    return {"text": text, "output_ids": list(range(tokens)), "meta_info": meta | {"cached_tokens": CACHED_TOKENS}}


async def sglang_events(plan: Plan):
    text = ""
    async for index, word in plan.words():
        text += word
        yield sse(sglang(plan, text, index + 1))
    yield b"data: [DONE]\n\n"


async def generate(request: Request):
    """TGI and SGLang share the path."""
    plan = await Plan.of(request)
    if "inputs" in plan.body:
        return await tgi_whole(plan, False)
    if plan.body.get("stream"):
        return stream(sglang_events(plan))
    await plan.all_of_it()
    return JSONResponse(sglang(plan, plan.text(), plan.tokens))


# llama.cpp: no `[DONE]`; the last event has `stop` and the counts.


def llama_end(plan: Plan, content: str) -> dict:
    timings = {"cache_n": CACHED_TOKENS, "prompt_n": PROMPT_TOKENS - CACHED_TOKENS, "predicted_n": plan.tokens}
    counts = {"tokens_predicted": plan.tokens, "tokens_evaluated": PROMPT_TOKENS}
    ending = {"stop_type": "limit", "stopping_word": "", "truncated": False, "has_new_line": False}
    return {"index": 0, "content": content, "tokens": [], "id_slot": 0, "stop": True, "model": plan.model, **counts,
            "generation_settings": {"n_predict": plan.tokens, "stop": []}, "prompt": "hello", **ending,
            "tokens_cached": PROMPT_TOKENS + plan.tokens, "timings": timings}  # fmt: skip


async def llama_events(plan: Plan):
    def part(content: str, index: int, **more) -> bytes:
        counts = {"tokens_predicted": index, "tokens_evaluated": PROMPT_TOKENS}
        return sse({"index": 0, "content": content, "tokens": [], "stop": False, "id_slot": -1, **counts, **more})

    if plan.body.get("return_progress"):
        async for step in plan.paced(4):
            progress = {"total": PROMPT_TOKENS, "cache": CACHED_TOKENS, "processed": 3 + step, "time_ms": step}
            yield part("", 0, prompt_progress=progress)
    async for index, word in plan.words():
        yield part(word, index + 1)
    yield sse(llama_end(plan, ""))


async def llama(request: Request):
    plan = await Plan.of(request)
    if plan.body.get("stream"):
        return stream(llama_events(plan))
    await plan.all_of_it()
    return JSONResponse(llama_end(plan, plan.text()))


# Triton: names its model, counts nothing.


async def triton_events(plan: Plan, model: str):
    async for _, word in plan.words():
        yield sse({"model_name": model, "model_version": "1", "text_output": word})


async def triton_stream(request: Request):
    return stream(triton_events(await Plan.of(request), request.path_params["model"]))


async def triton(request: Request):
    plan = await Plan.of(request)
    await plan.all_of_it()
    model = request.path_params["model"]
    return JSONResponse({"model_name": model, "model_version": "1", "text_output": plan.text()})


# Anthropic.


def anthropic_usage(plan: Plan, output: int) -> dict:
    fresh = {"input_tokens": PROMPT_TOKENS, "cache_creation_input_tokens": 0, "cache_read_input_tokens": CACHED_TOKENS}
    return fresh | {"output_tokens": output}


def anthropic_message(plan: Plan, content: list, reason: str | None, output: int) -> dict:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": plan.model, "content": content}
    return {**head, "stop_reason": reason, "stop_sequence": None, "usage": anthropic_usage(plan, output)}


async def anthropic_events(plan: Plan):
    def named(kind: str, **value) -> bytes:
        return sse({"type": kind, **value}, kind)

    yield named("message_start", message=anthropic_message(plan, [], None, 1))
    block, before = 0, plan.first
    if plan.thoughts:
        yield named("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""})
        async for index in plan.paced(plan.thoughts, plan.first):
            delta = {"type": "thinking_delta", "thinking": f"thought{index} "}
            yield named("content_block_delta", index=0, delta=delta)
        yield named("content_block_stop", index=0)
        block, before = 1, plan.first
    yield named("content_block_start", index=block, content_block={"type": "text", "text": ""})
    yield named("ping")
    async for index, word in plan.words(before):
        if index == plan.sample.get("error_at"):
            yield named("error", error={"type": "overloaded_error", "message": "Overloaded"})
            return
        yield named("content_block_delta", index=block, delta={"type": "text_delta", "text": word})
    yield named("content_block_stop", index=block)
    ending = {"stop_reason": "max_tokens", "stop_sequence": None}
    yield named("message_delta", delta=ending, usage={"output_tokens": plan.tokens + plan.thoughts})
    yield named("message_stop")


async def anthropic(request: Request):
    plan = await Plan.of(request)
    if plan.body.get("stream"):
        return stream(anthropic_events(plan))
    await plan.all_of_it()
    content = [{"type": "text", "text": plan.text()}]
    return JSONResponse(anthropic_message(plan, content, "max_tokens", plan.tokens))


# Ollama: streams unless told not to, lines of JSON.


def ollama_end(plan: Plan) -> dict:
    durations = {"total_duration": 5, "load_duration": 1, "prompt_eval_duration": 1, "eval_duration": 3}
    return {"done": True, "done_reason": "length", "prompt_eval_count": PROMPT_TOKENS,
            "eval_count": plan.tokens + plan.thoughts, **durations}  # fmt: skip


def ollama_said(plan: Plan, chat: bool, text: str, thought: str = "") -> dict:
    thinking = {"thinking": thought} if thought else {}
    said = {"message": {"role": "assistant", "content": text, **thinking}} if chat else {"response": text, **thinking}
    return {"model": plan.model, "created_at": "2026-01-01T00:00:00.000000001Z", **said}


async def ollama_lines(plan: Plan, chat: bool):
    if plan.thoughts:
        async for index in plan.paced(plan.thoughts, plan.first):
            yield ndjson({**ollama_said(plan, chat, "", f"thought{index} "), "done": False})
    async for index, word in plan.words():
        if index == plan.sample.get("error_at"):
            yield ndjson({"error": "an error was encountered while running the model"})
            return
        yield ndjson({**ollama_said(plan, chat, word), "done": False})
    yield ndjson({**ollama_said(plan, chat, ""), **ollama_end(plan)})


async def ollama(request: Request):
    plan = await Plan.of(request)
    chat = request.url.path.endswith("chat")
    if not plan.body.get("messages" if chat else "prompt"):
        return JSONResponse({**ollama_said(plan, chat, ""), "done": True, "done_reason": "load"})
    if plan.body.get("stream", True):
        return stream(ollama_lines(plan, chat), "application/x-ndjson")
    await plan.all_of_it()
    return JSONResponse({**ollama_said(plan, chat, plan.text()), **ollama_end(plan)})


# Work that generates nothing.

USAGE = {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS, "completion_tokens": 0}
VECTOR = [0.25, -0.5, 0.125]
OTHERS = {
    "/v1/embeddings": {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": VECTOR}],
                       "usage": {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS}},
    "/api/embed": {"embeddings": [VECTOR], "total_duration": 5, "load_duration": 1, "prompt_eval_count": PROMPT_TOKENS},
    "/v1/rerank": {"id": "r", "results": [{"index": 0, "relevance_score": 0.5}], "usage": {"total_tokens": PROMPT_TOKENS}},
    "/rerank": [{"index": 0, "score": 0.5}],
    "/v1/score": {"object": "list", "data": [{"index": 0, "object": "score", "score": 0.5}], "usage": USAGE},
    "/classify": {"object": "list", "data": [{"index": 0, "label": "a", "probs": [1.0]}], "usage": USAGE},
    "/pooling": {"object": "list", "data": [{"index": 0, "object": "pooling", "data": VECTOR}], "usage": USAGE},
    "/tokenize": {"count": 3, "max_model_len": 4096, "tokens": [1, 2, 3], "token_strs": None},
    "/detokenize": {"prompt": "hello"},
    "/v1/messages/count_tokens": {"input_tokens": PROMPT_TOKENS},
}  # fmt: skip


async def other(request: Request):
    plan = await Plan.of(request)
    await plan.all_of_it()
    answer = OTHERS[request.url.path]
    named = isinstance(answer, dict) and "model" in plan.body and ("usage" in answer or "embeddings" in answer)
    return JSONResponse({"model": plan.model, **answer} if named else answer)


async def health(_: Request):
    return PlainTextResponse("ok")


async def nothing(_: Request):
    return Response(status_code=204)


def post(path: str, endpoint) -> Route:
    return Route(path, endpoint, methods=["POST"])


app = Starlette(
    routes=[
        post("/", tgi_root),
        post("/generate", generate),
        post("/generate_stream", tgi_stream),
        post("/completion", llama),
        post("/infill", llama),
        post("/v2/models/{model}/generate", triton),
        post("/v2/models/{model}/generate_stream", triton_stream),
        post("/v1/messages", anthropic),
        post("/api/chat", ollama),
        post("/api/generate", ollama),
        post("/v1/chat/completions", chat_completions),
        Route("/v1/chat/completions", nothing, methods=["OPTIONS"]),
        *[post(path, other) for path in OTHERS],
        Route("/health", health, methods=["GET", "HEAD"]),
    ]
)

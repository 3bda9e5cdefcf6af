"""A proxy: passes every request on to `BACKEND` over a pool of connections, and every part of the answer back.

With `PASS_IDS` it passes on the headers that name a request, as gateways do; else its requests have no names.
"""

import os

import httpx
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

IDS = ("x-request-id", "traceparent")
client = httpx.AsyncClient(base_url=os.environ["BACKEND"], trust_env=False, timeout=60)


async def pass_on(request: Request):
    names = IDS if os.environ.get("PASS_IDS") else ()
    headers = {name: request.headers[name] for name in names if name in request.headers}
    headers["content-type"] = "application/json"
    outgoing = client.build_request("POST", request.url.path, content=await request.body(), headers=headers)
    answer = await client.send(outgoing, stream=True)
    return StreamingResponse(
        answer.aiter_raw(),
        status_code=answer.status_code,
        media_type=answer.headers.get("content-type"),
        background=BackgroundTask(answer.aclose),
    )


async def health(_: Request):
    return PlainTextResponse("ok")


app = Starlette(
    routes=[
        Route("/health", health),
        Route("/{path:path}", pass_on, methods=["POST"]),
    ]
)

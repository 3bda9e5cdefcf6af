"""The application with what its authors would measure it by: `prometheus_client`, in a middleware.

Time to first chunk, gaps between chunks, duration, requests by path and status: what serving engines have on board.
"""

import time

import app as plain
from prometheus_client import Counter, Histogram, make_asgi_app

LATENCY = [0.001 * 2**n for n in range(16)]
FIRST = Histogram("server_time_to_first_chunk_seconds", "From the request to the first chunk", ["path"], buckets=LATENCY)
GAP = Histogram("server_inter_chunk_seconds", "Between chunks", ["path"], buckets=LATENCY)
DURATION = Histogram("server_request_seconds", "From the request to its end", ["path"], buckets=LATENCY)
REQUESTS = Counter("server_requests_total", "Requests", ["path", "status"])

exposition = make_asgi_app()


async def app(scope, receive, send):
    if scope["type"] != "http":
        return await plain.app(scope, receive, send)
    path = scope["path"]
    if path.startswith("/metrics"):
        return await exposition(scope, receive, send)
    begun = time.perf_counter()
    last = None
    first, gap = FIRST.labels(path), GAP.labels(path)

    async def measured(message):
        nonlocal last
        if message["type"] == "http.response.start":
            REQUESTS.labels(path, message["status"]).inc()
        elif message.get("body"):
            now = time.perf_counter()
            if last is None:
                first.observe(now - begun)
            else:
                gap.observe(now - last)
            last = now
        await send(message)

    await plain.app(scope, receive, measured)
    DURATION.labels(path).observe(time.perf_counter() - begun)

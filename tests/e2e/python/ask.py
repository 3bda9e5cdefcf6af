"""Asks a server: ask.py LIBRARY BASE_URL REQUESTS, where LIBRARY is httpx, aiohttp or anthropic, and REQUESTS a JSON
list of objects with `id`, `path`, `body`, and as wanted `headers`, `expect` (100-continue), `leave`, `stall_ms` and
(httpx) `coding`, gzip or zstd, of the body.
`leave` ends the connection once `text` has come `count` times: by `close` or by `reset`; `stall_ms` stops reading
for so long after the headers.

Prints one JSON object per request, what the client itself saw: times are CLOCK_MONOTONIC, `chunks` pairs of a time
and the length of the body by then."""

import asyncio
import gzip
import json
import socket
import struct
import sys
import time

now = time.monotonic_ns


class Seen:
    def __init__(self, wanted: dict):
        self.wanted = wanted
        self.body = bytearray()
        self.said = {"id": wanted["id"], "status": None, "error": None, "chunks": [], "sent_ns": now()}

    def header(self, status: int) -> None:
        self.said |= {"status": status, "header_ns": now()}

    def take(self, chunk: bytes) -> bool:
        """Whether it is time to leave."""
        self.body.extend(chunk)
        self.said["chunks"].append([now(), len(self.body)])
        leave = self.wanted.get("leave")
        return leave is not None and self.body.count(leave["text"].encode()) >= leave["count"]

    def end(self, error: BaseException | None = None) -> None:
        self.said |= {"end_ns": now(), "body": self.body.decode("latin-1"), "error": error and repr(error)}
        print(json.dumps(self.said), flush=True)


def reset(sock) -> None:
    """Closing it is now a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def zstd(body: bytes) -> bytes:
    """A frame of one raw block: magic number, single segment with a size of 4 bytes, last block."""
    size = len(body)
    return bytes.fromhex("28b52ffda0") + size.to_bytes(4, "little") + ((size << 3) | 1).to_bytes(3, "little") + body


def by_httpx(base: str, all_wanted: list) -> None:
    import httpx

    # Who stalls has little room for what comes meanwhile.
    small = [(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)] if any("stall_ms" in one for one in all_wanted) else None
    transport = httpx.HTTPTransport(socket_options=small, trust_env=False)
    with httpx.Client(base_url=base, timeout=30, transport=transport) as client:
        for wanted in all_wanted:
            seen, error = Seen(wanted), None
            headers = {"x-request-id": wanted["id"], **wanted.get("headers", {})}
            content = {"json": wanted["body"]}
            if coding := wanted.get("coding"):
                pack = {"gzip": gzip.compress, "zstd": zstd}[coding]
                content = {"content": pack(json.dumps(wanted["body"]).encode())}
                headers |= {"content-encoding": coding, "content-type": "application/json"}
            try:
                with client.stream("POST", wanted["path"], headers=headers, **content) as answer:
                    seen.header(answer.status_code)
                    time.sleep(wanted.get("stall_ms", 0) / 1e3)
                    for chunk in answer.iter_raw():
                        if seen.take(chunk):
                            if wanted["leave"]["how"] == "reset":
                                reset(answer.extensions["network_stream"].get_extra_info("socket"))
                            break
            except httpx.HTTPError as problem:
                error = problem
            seen.end(error)


async def by_aiohttp(base: str, all_wanted: list) -> None:
    import aiohttp

    async with aiohttp.ClientSession(auto_decompress=False) as session:
        for wanted in all_wanted:
            seen, error = Seen(wanted), None
            headers = {"x-request-id": wanted["id"], **wanted.get("headers", {})}
            how = {"json": wanted["body"], "headers": headers, "expect100": wanted.get("expect", False)}
            try:
                async with session.post(base + wanted["path"], **how) as answer:
                    seen.header(answer.status)
                    await asyncio.sleep(wanted.get("stall_ms", 0) / 1e3)
                    async for chunk in answer.content.iter_any():
                        if seen.take(chunk):
                            if wanted["leave"]["how"] == "reset":
                                reset(answer.connection.transport.get_extra_info("socket"))
                            answer.close()
                            break
            except aiohttp.ClientError as problem:
                error = problem
            seen.end(error)


def by_anthropic(base: str, all_wanted: list) -> None:
    """The library parses: the body is its events, a line each."""
    import anthropic

    client = anthropic.Anthropic(base_url=base, api_key="none", max_retries=0, timeout=30)
    for wanted in all_wanted:
        seen, error = Seen(wanted), None
        body = dict(wanted["body"])
        further = {"extra_headers": {"x-request-id": wanted["id"]}, "extra_body": {"sample": body.pop("sample", {})}}
        try:
            answer = client.messages.create(**body, **further)
            seen.header(200)
            for part in answer if body.get("stream") else [answer]:
                seen.take(part.model_dump_json().encode() + b"\n")
        except anthropic.APIStatusError as problem:
            seen.header(problem.status_code)
        except anthropic.APIError as problem:
            error = problem
        seen.end(error)


def main() -> None:
    library, base, requests = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if library == "aiohttp":
        asyncio.run(by_aiohttp(base, requests))
    else:
        {"httpx": by_httpx, "anthropic": by_anthropic}[library](base, requests)


if __name__ == "__main__":
    main()

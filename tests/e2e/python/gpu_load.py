"""A small load for a real GPU behind an OpenAI-compatible server, in vLLM's shape: the server has no GPU context, its
worker has. Standard library only; the work is PyTorch's if that can be imported, else memory is filled and copied by the
driver's own library (libcuda.so.1), which needs no toolkit.

    gpu_load.py work       each token is 25 ms of work on the first GPU
    gpu_load.py none       each token is 25 ms of sleep
"""

import ctypes
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKENS = 20
SECONDS = 0.025
MEGABYTES = 512


class Sleep:
    name = "none"

    def some(self):
        time.sleep(0.001)


class Torch:
    def __init__(self):
        import torch

        if not torch.cuda.is_available():
            raise RuntimeError("torch has no CUDA here")
        self.torch = torch
        self.name = f"torch {torch.__version__}"
        self.matrix = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)

    def some(self):
        self.matrix @ self.matrix
        self.torch.cuda.synchronize()


class Driver:
    name = "libcuda"

    def __init__(self):
        self.cuda = ctypes.CDLL("libcuda.so.1")
        device, self.context = ctypes.c_int(), ctypes.c_void_p()
        self.one, self.other = ctypes.c_uint64(), ctypes.c_uint64()
        self.size = MEGABYTES << 19
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(self.context), device)
        self.call("cuCtxSetCurrent", self.context)
        for address in (self.one, self.other):
            self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(self.size))

    def call(self, name, *arguments):
        code = getattr(self.cuda, name)(*arguments)
        if code:
            raise RuntimeError(f"{name}: CUDA error {code}")

    def some(self):
        for value in range(4):
            self.call("cuMemsetD32_v2", self.one, ctypes.c_uint(value), ctypes.c_size_t(self.size // 4))
            self.call("cuMemcpyDtoD_v2", self.other, self.one, ctypes.c_size_t(self.size))
        self.call("cuCtxSynchronize")


def work(kind):
    """Some work on a GPU, and why it is not of a better kind."""
    reasons = []
    for attempt in (Torch, Driver) if kind == "work" else ():
        try:
            return attempt(), reasons
        except Exception as error:  # whatever a broken installation raises
            reasons.append(f"{attempt.__name__}: {error}")
    return Sleep(), reasons


def worker(kind, orders, answers):
    """Works whenever it is told to, until nobody is left who would."""
    doing, reasons = work(kind)
    answers.write(json.dumps({"work": doing.name, "reasons": reasons}) + "\n")
    answers.flush()
    while orders.readline():
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            doing.some()
        answers.write("\n")
        answers.flush()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    lock = threading.Lock()

    def chunk(self, text):
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())

    def event(self, value):
        self.chunk(f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n")

    def do_GET(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))

        def part(choices, **more):
            kind = "chat.completion.chunk"
            return {"id": "cmpl-1", "object": kind, "created": 1, "model": body["model"], "choices": choices, **more}

        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.wfile.write(head.encode())
        for index in range(TOKENS):
            # One batch at a time, as on a real engine's GPU.
            with self.lock:
                self.orders.write("\n")
                self.orders.flush()
                self.answers.readline()
            self.event(part([{"index": 0, "delta": {"content": f"word{index} "}, "finish_reason": None}]))
        self.event(part([{"index": 0, "delta": {}, "finish_reason": "stop"}]))
        self.event(part([], usage={"prompt_tokens": 3, "completion_tokens": TOKENS, "total_tokens": 3 + TOKENS}))
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


def main(kind):
    to_worker, from_worker = os.pipe(), os.pipe()
    # Before anything of CUDA is loaded: a context does not survive a fork.
    pid = os.fork()
    if pid == 0:
        os.close(to_worker[1])
        worker(kind, os.fdopen(to_worker[0]), os.fdopen(from_worker[1], "w"))
        return
    os.close(to_worker[0])
    os.close(from_worker[1])
    Handler.orders, Handler.answers = os.fdopen(to_worker[1], "w"), os.fdopen(from_worker[0])
    does = json.loads(Handler.answers.readline())
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print("serving", json.dumps({"port": server.server_port, "worker": pid, **does}), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])

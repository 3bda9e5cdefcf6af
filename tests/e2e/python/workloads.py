"""Servers of several processes, in the shapes that real ones have. Standard library only, but for vllm.

    workloads.py serve PORT            one process
    workloads.py engine PORT           a server, an engine that it starts, and two workers of that
    workloads.py vllm PORT             the same with the application of app.py on uvicorn, as vLLM has it
    workloads.py runner PORT CHILD     a server that passes what it is asked on to a server that it starts
    workloads.py harness SHAPE …       starts one of the above, by the same interpreter, and waits for it

All but the first process end when their parent does.
"""

import ctypes
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ANSWER = json.dumps(
    {
        "id": "cmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
).encode()


def application(environ, start_response):
    """The same for a WSGI server."""
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(ANSWER)))])
    return [ANSWER]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    child = None

    def answer(self, body):
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        self.wfile.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def do_GET(self):
        self.answer(b"{}")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(json.loads(body).get("sample", {}).get("ttft_ms", 0) / 1000)
        if self.child is None:
            return self.answer(ANSWER)
        connection = http.client.HTTPConnection("127.0.0.1", self.child, timeout=20)
        connection.request("POST", self.path, body, {"Content-Type": "application/json"})
        self.answer(connection.getresponse().read())
        connection.close()

    def log_message(self, *_):
        pass


def serve(port):
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    print(f"listening on 127.0.0.1:{port}", flush=True)
    server.serve_forever()


def end_with(reader):
    """Ends this process when nobody holds the other end of the pipe any more."""
    os.read(reader, 1)
    os._exit(0)


def engine(port, server=serve):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(writer)
        for _ in range(2):
            if os.fork() == 0:
                end_with(reader)
        end_with(reader)
    server(port)


def on_uvicorn(port):
    import uvicorn

    uvicorn.run("app:app", host="127.0.0.1", port=int(port), log_level="warning")


def vllm(port):
    engine(port, on_uvicorn)


def runner(port, child):
    reader, _writer = os.pipe()
    program = [sys.executable, __file__, "child", child, str(reader)]
    with subprocess.Popen(program, pass_fds=[reader], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        Handler.child = int(child)
        serve(port)


def child(port, reader):
    threading.Thread(target=end_with, args=[int(reader)], daemon=True).start()
    serve(port)


def harness(*arguments):
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        os.execv(sys.executable, [sys.executable, __file__, *arguments])
    os.wait()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])

"""A server that is asked for one completion, and then for work that the kernel accounts for.

`POST /v1/chat/completions` answers at once. `GET /do/WHAT/COUNT` does something and answers when it is done:
spin (milliseconds of computing in each of two children), nap (sleeps of 1 ms), run (the program named second on the
command line, with that number; the answer is what it says), touch (pages of new memory), page (pages of a mapped file,
in the folder named first, that is not in the page cache), and all of `io_work.py`.
"""

import mmap
import os
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from io_work import Work

ANSWER = (
    b'{"id":"1","object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"a"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
)
PAGE = mmap.PAGESIZE


def spin(milliseconds):
    end = time.process_time() + milliseconds / 1000
    while time.process_time() < end:
        pass


def child(commands, done):
    while order := os.read(commands, 8):
        spin(int(order))
        os.write(done, b".")
    os._exit(0)


def crew(size):
    """Children that compute when they are told to: a function that tells them all, and waits."""
    done_read, done_write = os.pipe()
    orders = []
    for _ in range(size):
        read, write = os.pipe()
        if os.fork() == 0:
            for other in orders:
                os.close(other)
            os.close(write)
            child(read, done_write)
        os.close(read)
        orders.append(write)

    def work(milliseconds):
        for order in orders:
            os.write(order, b"%8d" % milliseconds)
        for _ in orders:
            os.read(done_read, 1)

    return work


def nap(count):
    for _ in range(count):
        time.sleep(0.001)


def run(count):
    return subprocess.run([sys.argv[2], str(count)], check=True, stdout=subprocess.PIPE).stdout


def touch(pages):
    with mmap.mmap(-1, pages * PAGE) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(pages):
            memory[page * PAGE] = 1


def page(pages):
    with tempfile.NamedTemporaryFile(dir=sys.argv[1]) as file:
        file.write(b"x" * (pages * PAGE))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            mapped.madvise(mmap.MADV_RANDOM)
            sum(mapped[number * PAGE] for number in range(pages))


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(ANSWER)

    def do_GET(self):
        _, _, what, count = self.path.split("/")
        self.answer(WORK[what](int(count)) or b"{}")

    def log_message(self, *_):
        pass


WORK = {"spin": crew(2), "nap": nap, "run": run, "touch": touch, "page": page, **Work(sys.argv[1]).all()}
server = HTTPServer(("127.0.0.1", 0), Handler)
print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()

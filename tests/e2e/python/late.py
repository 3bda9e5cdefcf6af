"""A server that accepts and reads late, one connection after another; `backlog` of them may wait.

Once the file GO0 (GO1, ...) is there it takes its first (second, ...) connection, waits, reads a request, says when its
first read returned, answers, and closes."""

import os
import socket
import sys
import time

address, port, backlog, delay, go = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), sys.argv[5]
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, port))
listener.listen(backlog)
print(f"listening on {address}:{port}", flush=True)
body = b'{"id":"x","object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"stop",' \
    b'"message":{"role":"assistant","content":"hi"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
answered = 0
while True:
    while not os.path.exists(f"{go}{answered}"):
        time.sleep(0.02)
    connection, _ = listener.accept()
    time.sleep(delay)
    request = connection.recv(65536)
    print(f"read at {time.clock_gettime_ns(time.CLOCK_MONOTONIC)}", flush=True)
    head, _, rest = request.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    while len(rest) < length:
        rest += connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    connection.close()
    answered += 1

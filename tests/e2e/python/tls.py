"""A TLS server that counts the bytes of its own socket calls, and its clients.

One connection is made at once; told by SIGUSR1, it talks on that and on a new one, and prints what the server's ends
moved from then on: {"received": bytes, "sent": bytes}. Arguments: certificate, key.
"""

import json
import signal
import socket
import ssl
import sys
import threading

QUESTION, ANSWER, ROUNDS = b"q" * 300, b"a" * 5000, 4

moved = {"received": 0, "sent": 0}
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE


def serve(connection, sizes):
    """Reads by these sizes in turn: OpenSSL asks for a record's five bytes of header first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_side=True)
    turn = 0

    def push():
        data = outgoing.read()
        if data:
            # Counted first: who receives the last of them may print at once.
            moved["sent"] += len(data)
            connection.sendall(data)

    def pull():
        nonlocal turn
        data = connection.recv(sizes[turn % len(sizes)])
        turn += 1
        moved["received"] += len(data)
        if data:
            incoming.write(data)
        else:
            incoming.write_eof()

    def until(step):
        while True:
            try:
                result = step()
                push()
                return result
            except ssl.SSLWantReadError:
                push()
                pull()
            except ssl.SSLError:
                return b""

    until(session.do_handshake)
    while until(lambda: session.read(len(QUESTION))):
        until(lambda: session.write(ANSWER))


def talk(client):
    for _ in range(ROUNDS):
        client.sendall(QUESTION)
        left = len(ANSWER)
        while left:
            left -= len(client.recv(left))


def connect(listener, sizes):
    raw = socket.create_connection(listener.getsockname())
    connection, _ = listener.accept()
    thread = threading.Thread(target=serve, args=(connection, sizes), daemon=True)
    thread.start()
    return trusting.wrap_socket(raw)


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
listener = socket.create_server(("127.0.0.1", 0))
early = connect(listener, [5, 65536])
talk(early)
print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
signal.sigwait({signal.SIGUSR1})
moved.update(received=0, sent=0)
talk(early)
late = connect(listener, [65536])
talk(late)
print(json.dumps(moved), flush=True)
signal.sigwait({signal.SIGUSR1})

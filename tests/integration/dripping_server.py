"""A loopback server that sends something again and again and never an answer: no silence is long enough to notice."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERVAL = 0.05
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
BEGINNINGS = {
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-More: 1\r\n"),
    "blanks": (CHUNKED % b"application/json", b"1\r\n \r\n"),
    "comments": (CHUNKED % b"text/event-stream", b"6\r\n: hi\n\n\r\n"),
    "nothing": (b"", b""),
}
"""What is sent at once, and what after it, by name."""


@contextmanager
def serve(sends: str) -> Iterator[str]:
    """Serve while the block lasts; yields the address."""
    first, again = BEGINNINGS[sends]
    ended = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(first)
            while not ended.wait(INTERVAL):
                connection.sendall(again)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=drip, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        ended.set()
        listener.shutdown(socket.SHUT_RDWR)

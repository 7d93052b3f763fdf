"""A server on this machine that says what a test wants, for the clients of speech servers and judges."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, content."""


class Request(NamedTuple):
    """What was asked."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Server:
    """What was asked so far, and how much of it at once."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.most_at_once = self.at_once = 0
        self.lock = threading.Lock()


@contextmanager
def serving(answer: Callable[[dict[str, Any], int], Answer]) -> Iterator[tuple[str, Server]]:
    """Address and server; `answer(request body, number of request)` decides what it says."""
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with server.lock:
                number = len(server.requests)
                server.requests.append(Request(self.path, dict(self.headers.items()), body))
                server.at_once += 1
                server.most_at_once = max(server.most_at_once, server.at_once)
            status, headers, data = answer(body, number)
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except OSError:
                pass  # The client gave up.
            finally:
                with server.lock:
                    server.at_once -= 1

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}", server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()

"""A web server that alerts are posted to."""

from __future__ import annotations

import http.server
import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Hook:
    """It fails so often before it takes what is posted."""

    def __init__(self) -> None:
        self.url = ""
        self.num_failures = 0
        self.posts: queue.Queue[dict[str, Any]] = queue.Queue()


@contextmanager
def running_hook() -> Iterator[Hook]:
    """Listens until the context ends."""
    hook = Hook()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            is_failure = hook.num_failures > 0
            hook.num_failures -= is_failure
            self.send_response(500 if is_failure else 204)
            self.send_header("content-length", "0")
            self.end_headers()
            if not is_failure:
                hook.posts.put(json.loads(body))

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook.url = f"http://127.0.0.1:{server.server_port}/hook"
        # looks every 10 ms whether it is to end
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield hook
        server.shutdown()
        thread.join()

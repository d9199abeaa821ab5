"""The two ends of the socket between the gateway (asyncio, many channels) and a worker (blocking, one channel).

DEALER to DEALER over a Unix socket; the gateway binds. Neither end ever blocks in a send: the queues are unbounded, and
what bounds them is the number of requests in flight.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

from mlx_manager.ipc.messages import FromWorker, ToWorker, decode_from_worker, decode_to_worker, encode

MAX_MESSAGES_PER_TURN = 64
"""Messages handed on before the event loop gets a turn."""

_POLLIN = int(zmq.POLLIN)


class GatewayChannel:
    """The gateway's end: binds `address`, and calls `on_message` from the event loop with each message that arrives.

    A plain ZeroMQ socket watched by the loop: between a third and two thirds of the time `zmq.asyncio` takes.
    `on_message` must not raise. What is wrong with a frame that cannot be read goes to `on_garbage`; after it the
    channel is silent.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        on_message: Callable[[FromWorker], None],
        on_garbage: Callable[[str], None],
    ) -> None:
        self._on_message = on_message
        self._on_garbage = on_garbage
        self._loop = asyncio.get_running_loop()
        self._socket = _open(context)
        self._socket.bind(address)
        self._fd = int(self._socket.getsockopt(zmq.FD))
        self._is_closed = False
        self._loop.add_reader(self._fd, self.receive)

    def send(self, message: ToWorker) -> bool:
        """Queue `message`; False where no worker is connected."""
        if self._is_closed:
            return False
        try:
            self._socket.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        # ZeroMQ signals arrivals by edge, and a send may swallow the edge: look once more.
        self._loop.call_soon(self.receive)
        return True

    def receive(self) -> None:
        """Hand on what has arrived, up to `MAX_MESSAGES_PER_TURN`; the rest in the loop's next turn."""
        for _ in range(MAX_MESSAGES_PER_TURN):
            # Asking first is cheaper than the exception that an empty socket's `recv` makes.
            if self._is_closed or not int(self._socket.getsockopt(zmq.EVENTS)) & _POLLIN:
                return
            try:
                message = decode_from_worker(self._socket.recv(zmq.NOBLOCK))
            except ValueError as error:  # msgspec's errors, and text that is not UTF-8
                self._stop_reading()
                self._on_garbage(str(error))
                return
            self._on_message(message)
        self._loop.call_soon(self.receive)

    def close(self) -> None:
        """Drop the socket and what is queued on it; may be called twice."""
        self._stop_reading()
        self._socket.close(linger=0)

    def _stop_reading(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._fd)


class WorkerChannel:
    """The worker's end, for its main thread only."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes]) -> None:
        self._context = context
        self._socket = socket

    @classmethod
    def connect(cls, address: str) -> WorkerChannel:
        """Connect to the gateway at `address` (`ipc://…`); what is sent before the connection stands is queued."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = _open(context)
        socket.connect(address)
        return cls(context, socket)

    def send(self, message: FromWorker) -> None:
        """Queue `message`."""
        self._socket.send(encode(message))

    def poll(self, timeout_s: float | None = 0.0) -> ToWorker | None:
        """The next message, waiting for it up to `timeout_s` (None: for ever); None when there is none.

        Raises `msgspec.DecodeError` on a frame that is no message.
        """
        try:
            return decode_to_worker(self._socket.recv(zmq.NOBLOCK))
        except zmq.Again:
            if timeout_s == 0.0:
                return None
        is_here = self._socket.poll(None if timeout_s is None else max(1, round(timeout_s * 1000)))
        return decode_to_worker(self._socket.recv(zmq.NOBLOCK)) if is_here else None

    def close(self, linger_s: float = 1.0) -> None:
        """Close the socket, first giving what is queued up to `linger_s` to leave."""
        self._socket.close(linger=round(linger_s * 1000))
        self._context.term()


def _open(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    return socket

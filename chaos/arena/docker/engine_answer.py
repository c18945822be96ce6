"""How long the engine takes to answer, and how loaded this host is: two measures of overload.

The call does nothing in the engine. It has a thread of its own: the pool of the event loop may be full of calls that
wait for a slow engine, and a place in that queue is no answer time.
"""

import asyncio
import contextlib
import os
import threading
import time

import docker

from harness.errors import BlackstartError
from harness.rig.engine.connection import engine_call

__all__ = ["engine_answer_us", "load_average"]


async def engine_answer_us(client: docker.DockerClient) -> int:
    """The microseconds that the engine's answer took, measured in the thread. Raises EngineError."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[int] = loop.create_future()

    def settle(took_us: int, error: BlackstartError | None) -> None:
        if answered.done():
            return  # the question was given up
        if error is None:
            answered.set_result(took_us)
        else:
            answered.set_exception(error)

    def ask() -> None:
        began_ns, failure = time.monotonic_ns(), None
        try:
            with engine_call("ask the engine whether it answers"):
                client.ping()
        except BlackstartError as error:
            failure = error
        took_us = (time.monotonic_ns() - began_ns) // 1000
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the question
            loop.call_soon_threadsafe(settle, took_us, failure)

    threading.Thread(target=ask, name="engine answer", daemon=True).start()
    return await answered


def load_average() -> float | None:
    """The load average of this host over the last minute; None where the system has none."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None

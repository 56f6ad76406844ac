"""A limit of time for a whole call: what clients call a time-out is the longest silence between two bytes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import TIMEOUT_MAX, Thread
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float, call: Callable[[], T]) -> T:
    """What the call returns or raises, if that comes in time.

    It runs in a thread. One that is late is left alone: nobody waits for it, not even the end of the process, and what
    it brings is dropped. It ends when its server sends nothing for the client's own time-out, or hangs up.

    Args:
        seconds: May be infinite.
    Raises:
        TimeoutError: It is late.
    """
    done: Future[T] = Future()

    def work() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    Thread(target=work, name="teacher call", daemon=True).start()
    if not wait([done], min(max(seconds, 0), TIMEOUT_MAX)).done:
        raise TimeoutError(f"no answer within {seconds:.3g} s")
    return done.result()

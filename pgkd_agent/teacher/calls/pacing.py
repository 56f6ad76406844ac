"""Keep to a provider's rate: requests and tokens a minute."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class Pace:
    """Spaces the starts of calls evenly, without bursts; may be shared by threads.

    A call of n tokens keeps the next one waiting for n / rate, so in no minute there are more requests than
    allowed, nor more tokens than allowed and those of one call.

    Args:
        requests_per_minute, tokens_per_minute: None for no limit.
        clock: Seconds, rising.
        sleep: Told how many seconds to wait.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next_start = 0.0

    def wait(self, tokens: int, at_most: float = math.inf) -> bool:
        """Wait for this call's turn; False, at once, where it comes too late, and then the turn is not taken.

        Args:
            tokens: Of prompt and reply.
            at_most: Seconds.
        """
        gap = 0.0
        if self._requests_per_minute is not None:
            gap = 60 / self._requests_per_minute
        if self._tokens_per_minute is not None:
            gap = max(gap, 60 * tokens / self._tokens_per_minute)
        if not gap:
            return True
        with self._lock:
            now = self._clock()
            start = max(now, self._next_start)
            if start - now > at_most:
                return False
            self._next_start = start + gap
        if start > now:
            self._sleep(start - now)
        return True

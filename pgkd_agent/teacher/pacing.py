"""Keep to a provider's rate: requests and tokens a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """Spaces the starts of calls evenly, without bursts; may be shared by threads.

    A call of n tokens keeps the next one waiting for n / rate, so in no minute there are more requests than
    allowed, nor more tokens than allowed and those of one call.

    Args:
        requests_per_minute, tokens_per_minute: None for no limit.
        clock, sleep: In seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._requests_per_minute = requests_per_minute
        self._tokens_per_minute = tokens_per_minute
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next_start = 0.0

    def wait(self, tokens: int) -> None:
        """Wait for this call's turn.

        Args:
            tokens: Most that prompt and reply may take.
        """
        gap = 0.0
        if self._requests_per_minute is not None:
            gap = 60 / self._requests_per_minute
        if self._tokens_per_minute is not None:
            gap = max(gap, 60 * tokens / self._tokens_per_minute)
        if not gap:
            return
        with self._lock:
            now = self._clock()
            start = max(now, self._next_start)
            self._next_start = start + gap
        if start > now:
            self._sleep(start - now)

"""Keep to a provider's rate: requests a minute."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable


class Pace:
    """Spaces the starts of calls evenly, without bursts; may be shared by threads.

    Args:
        requests_per_minute: None for no limit.
        clock: Seconds, rising.
        sleep: Told how many seconds to wait.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._gap = 60 / requests_per_minute if requests_per_minute else 0.0
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next_start = 0.0

    def wait(self, at_most: float = math.inf) -> bool:
        """Wait for this call's turn; False, at once, where it comes too late, and then the turn is not taken.

        Args:
            at_most: Seconds.
        """
        if not self._gap:
            return True
        with self._lock:
            now = self._clock()
            start = max(now, self._next_start)
            if start - now > at_most:
                return False
            self._next_start = start + self._gap
        if start > now:
            self._sleep(start - now)
        return True

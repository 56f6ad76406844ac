"""Calls again after passing failures; the only retry layer (clients have theirs off)."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from pgkd_agent.teacher.calls.failures import Kind, classify, retry_after

logger = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST_WAIT = 30.0
"""Seconds between two tries, where the provider does not say how long to wait."""
LONGEST_RETRY_AFTER = 300.0
"""Seconds that a provider may ask us to wait; a run should not hang for hours on one call."""


def call_with_retries(
    call: Callable[[], T],
    max_attempts: int,
    max_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Call, and again after a passing failure: after the time that the provider names, else with exponential waits
    and jitter.

    Args:
        max_seconds: Since the first try, after which none is begun.
    Raises:
        Exception: What the last try raised: another kind of failure, one try too many, or a provider that asks for
            a wait of more than `LONGEST_RETRY_AFTER`.
    """
    started, tries, pause = time.monotonic(), 0, 1.0
    while True:
        try:
            return call()
        except Exception as error:
            tries += 1
            asked = retry_after(error)
            wait = min(pause + random.random(), LONGEST_WAIT) if asked is None else asked
            pause *= 2
            is_over = tries >= max_attempts or time.monotonic() - started + wait >= max_seconds
            if is_over or not is_worth_another_try(error):
                raise
            logger.warning("teacher: %s; trying again in %.0f s", type(error).__name__, wait)
        sleep(wait)


def is_worth_another_try(error: BaseException) -> bool:
    return classify(error) is Kind.PASSING and (retry_after(error) or 0) <= LONGEST_RETRY_AFTER

"""Calls again after passing failures; the only retry layer (clients have theirs off)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import tenacity

from pgkd_agent.teacher.calls.failures import Kind, classify, retry_after

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_ATTEMPTS = 3
"""Tries of one request, for passing errors; a teacher also asks so often for replies without a readable sample."""
LONGEST_RETRYING = 900.0
"""Seconds since the first try after which none is begun."""
LONGEST_WAIT = 30.0
"""Seconds between two tries, where the provider does not say how long to wait."""
LONGEST_RETRY_AFTER = 300.0
"""Seconds that a provider may ask us to wait; a run should not hang for hours on one call."""


def call_with_retries(
    call: Callable[[], T],
    max_seconds: float,
    sleep: Callable[[float], None] = tenacity.sleep,
    is_worth_it: Callable[[BaseException], bool] | None = None,
) -> T:
    """Call, and again after a passing failure: after the time that the provider names, else with exponential waits
    and jitter.

    Args:
        max_seconds: Since the first try, after which none is begun.
        is_worth_it: Whether a failure may pass; None: see `is_worth_another_try`.
    Raises:
        Exception: What the last try raised: another kind of failure, one try too many, or a provider that asks for
            a wait of more than `LONGEST_RETRY_AFTER`.
    """
    retrying = tenacity.Retrying(
        sleep=sleep,
        stop=tenacity.stop_after_attempt(MAX_ATTEMPTS) | tenacity.stop_before_delay(max_seconds),
        wait=_wait,
        retry=tenacity.retry_if_exception(is_worth_it or is_worth_another_try),
        before_sleep=_say,
        reraise=True,
    )
    return retrying(call)


def is_worth_another_try(error: BaseException) -> bool:
    return classify(error) is Kind.PASSING and (retry_after(error) or 0) <= LONGEST_RETRY_AFTER


_backoff = tenacity.wait_exponential_jitter(initial=1, max=LONGEST_WAIT)


def _wait(state: tenacity.RetryCallState) -> float:
    asked = retry_after(error) if state.outcome and (error := state.outcome.exception()) else None
    return _backoff(state) if asked is None else asked


def _say(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0
    logger.warning("teacher: %s; trying again in %.0f s", type(error).__name__, wait)

"""`EnsembleTeacher`: several teachers that take turns, a KD step each: so a step shows what its teacher is worth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pgkd_agent.loop.protocols import Teacher
from pgkd_agent.seeding import rng
from pgkd_agent.types import TeacherReply, TeacherRequest


class EnsembleTeacher:
    """
    Args:
        weights: One per teacher; only for `weighted` turns.
        turns: `rotating`, in the order given; `weighted`, drawn by weight.
        seed: Of the run.
    """

    def __init__(
        self, teachers: Sequence[Teacher], weights: Sequence[float], turns: Literal["rotating", "weighted"], seed: int
    ) -> None:
        self._teachers = teachers
        self._weights = weights
        self._turns = turns
        self._seed = seed

    def turn(self, kd_step: int) -> int:
        """Which teacher writes in a KD step, counted from 0."""
        if self._turns == "rotating":
            return (kd_step - 1) % len(self._teachers)
        return rng(self._seed, kd_step, "ensemble").choices(range(len(self._teachers)), self._weights)[0]

    def write(self, request: TeacherRequest) -> TeacherReply:
        return self._teachers[self.turn(request.kd_step)].write(request)

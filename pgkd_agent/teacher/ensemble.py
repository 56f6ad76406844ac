"""`EnsembleTeacher`: several teachers that take turns, a KD step each: so a step shows what its teacher is worth."""

from __future__ import annotations

from collections.abc import Sequence

from pgkd_agent.loop.protocols import Teacher
from pgkd_agent.types import TeacherReply, TeacherRequest


class EnsembleTeacher:
    """Lets teachers write one after the other, in the order given."""

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        self._teachers = teachers

    def turn(self, kd_step: int) -> int:
        """Which teacher writes in a KD step, counted from 0."""
        return (kd_step - 1) % len(self._teachers)

    def write(self, request: TeacherRequest) -> TeacherReply:
        """Have the teacher whose turn it is write."""
        return self._teachers[self.turn(request.kd_step)].write(request)

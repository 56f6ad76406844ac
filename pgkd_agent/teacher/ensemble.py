"""`EnsembleTeacher`: several teachers that take turns, a KD step each: so a step shows what its teacher is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pgkd_agent.loop.protocols import Teacher
from pgkd_agent.types import TeacherReply, TeacherRequest


def with_calls_of(reply: TeacherReply, other: TeacherReply) -> TeacherReply:
    """A reply that took the other's calls too."""
    return replace(
        reply,
        num_requests=reply.num_requests + other.num_requests,
        num_malformed=reply.num_malformed + other.num_malformed,
        num_refused=reply.num_refused + other.num_refused,
        usage=reply.usage + other.usage,
    )


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

"""Everything that can go wrong for a reason the caller can act on.

    PGKDError
    ├── ConfigError                 settings, flags, or a missing local piece     exit 2
    ├── DataError                   rows, taxonomy, splits                        exit 2
    ├── PromptError                 a template that cannot be found or rendered   exit 2
    ├── TeacherError                                                              exit 3
    │   ├── TeacherUnavailableError provider, network, credentials
    │   │   ├── TeacherContextError a prompt longer than the model takes
    │   │   └── TeacherRejectedError a request that the model does not take in this form
    │   ├── TeacherOutputError      replies without a single valid sample
    │   └── BudgetExceededError     a cap that leaves no room for the next request
    ├── StudentDivergedError        a loss that is not finite                     exit 4
    └── StorageError                disk, permissions, a damaged run directory    exit 5

A message says what was found, what was expected, and what to do about it.
"""

from __future__ import annotations


class PGKDError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 1


class ConfigError(PGKDError):
    exit_code = 2


class DataError(PGKDError):
    exit_code = 2


class PromptError(PGKDError):
    exit_code = 2


class TeacherError(PGKDError):
    exit_code = 3


class TeacherUnavailableError(TeacherError):
    """The provider cannot be reached or refuses us; trying again will not help by itself."""


class TeacherContextError(TeacherUnavailableError):
    """The prompt is longer than the model's context."""


class TeacherRejectedError(TeacherUnavailableError):
    """The provider rejects the request as it is, as with tools for a model that takes none."""


class TeacherOutputError(TeacherError):
    """The teacher answered, but no sample could be read from any reply.

    Args:
        message: What was expected and what to do.
        raw_replies: The replies as they came, in order; also in the run's call log.
    """

    def __init__(self, message: str, raw_replies: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.raw_replies = raw_replies


class BudgetExceededError(TeacherError):
    """The next request could exceed a cap; it was not sent. A distillation then ends with its best model."""


class StudentDivergedError(PGKDError):
    exit_code = 4


class StorageError(PGKDError):
    exit_code = 5

"""What a provider is: how its chat model is built, what it takes in a call, and by what its errors are told."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from langchain_core.language_models import BaseChatModel

from pgkd_agent.config import TeacherSettings
from pgkd_agent.teacher.providers.batch import BatchJobs
from pgkd_agent.teacher.providers.dialect import Capabilities, Dialect

FREE_CHECK_SECONDS = 10.0
"""For finding out, without a call of the model, whether its server answers."""


class Kind(StrEnum):
    """Of a failed call, in the order in which they are looked for, with what follows; else the run ends."""

    CONTEXT = "prompt longer than the model's context"  # shortened (`teacher.chain`) while there is something to drop
    REFUSED = "refused for its content"  # counted, asked once more; then the request brings nothing (`teacher.chain`)
    AUTH = "credentials missing or refused"
    QUOTA = "quota used up"
    NO_MODEL = "no such model"
    NOT_SET_UP = "no connection as things are set up"
    PASSING = "rate limit, time-out, connection or server error"  # tried again after a wait (`calls.retrying`)
    NOT_API = "not an answer of the provider's API"
    EMPTY = "an answer without a message"  # an empty reply: counted, and asked again (`teacher.chain`)
    REJECTED = "request rejected"  # the setting that it names is dropped and the call repeated (`providers.dialect`)


@dataclass(frozen=True)
class ChatTeacher:
    """A chat model ready for calls.

    Attributes:
        server: All that tells this model from others of the same name: the address where it is asked, its file.
        close: Frees what the model holds (a local server).
        check_free: Finds out without a call whether server and key are right, and returns False where only a call can
            tell; None where nothing can.
        is_embedded: It computes on this machine for this process: a call that took too long would only add to the
            load a second time.
        jobs: What asks many questions by batch jobs; None asks each directly.
    """

    model: BaseChatModel
    model_id: str
    dialect: Dialect = field(default_factory=lambda: Dialect(Capabilities()))
    server: str = ""
    close: Callable[[], None] = lambda: None
    check_free: Callable[[], bool | None] | None = None
    is_embedded: bool = False
    jobs: BatchJobs | None = None


@dataclass(frozen=True)
class Provider:
    """One way to chat models; `register` makes it known.

    Attributes:
        name: Before the colon in `teacher.spec`.
        build: From the name after the colon, the settings and the longest reply in tokens to the model, with its
            client's own retries off. It imports what is heavy. `build_teacher` adds the dialect, and `server` where
            that is empty.
        capabilities: What its models take.
        elsewhere: The same of another server than the provider's own; None: the same.
        module: Of an optional package that `build` imports; `install` is what `pip` calls it.
        keys: Environment variables that have to be set.
        more_keys: Others that may hold keys.
        server_variables: Environment variables that may name another server; the first one wins.
        own_server: The address where nothing names another; needed only where that is on this machine.
        address_fields: Where LangChain's model keeps the address of its server.
        errors: Regular expressions by kind of error, searched in its class, code and message where the HTTP status
            does not say enough. They hold for errors of all providers.
        unsent: Regular expression of the classes of errors before anything is sent: nothing is billed for them.
        advice: What to do by kind of error, where that is particular.
        jobs: From its model to its batch jobs; None where it has none.
    """

    name: str
    build: Callable[[str, TeacherSettings, int], ChatTeacher]
    capabilities: Capabilities = field(default_factory=Capabilities)
    elsewhere: Capabilities | None = None
    module: str = ""
    install: str = ""
    keys: tuple[str, ...] = ()
    more_keys: tuple[str, ...] = ()
    server_variables: tuple[str, ...] = ()
    own_server: str = ""
    address_fields: tuple[str, ...] = ()
    errors: Mapping[Kind, str] = field(default_factory=dict)
    unsent: str = ""
    advice: Mapping[Kind, str] = field(default_factory=dict)
    jobs: Callable[[BaseChatModel], BatchJobs] | None = None

    @property
    def key_variables(self) -> tuple[str, ...]:
        return (*self.keys, *self.more_keys)

    def server_of(self, settings: TeacherSettings) -> str:
        """The address of the server, where settings or environment name another than the provider's own; else empty."""
        return (settings.base_url or next(filter(None, map(os.environ.get, self.server_variables)), "")).strip()

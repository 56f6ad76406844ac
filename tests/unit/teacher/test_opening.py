from __future__ import annotations

from pgkd_agent.config import EnsembleMember, TeacherSettings
from pgkd_agent.teacher.opening import members

SERVER, OTHER = "http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"


def servers(spec: str, base_url: str | None, *ensemble: EnsembleMember) -> list[str | None]:
    settings = TeacherSettings(spec=spec, base_url=base_url, ensemble=ensemble)
    return [member.base_url for member in members(settings)]


def test_a_member_asks_the_first_teachers_server_where_both_speak_its_protocol() -> None:
    same, another = EnsembleMember(spec="openai:b"), EnsembleMember(spec="anthropic:c")
    assert servers("openai:a", SERVER, same, another) == [SERVER, SERVER, None]
    assert servers("openai:a", None, same) == [None, None]
    assert servers("openai_like:a", SERVER, same) == [SERVER, None]  # the whole provider counts


def test_a_member_keeps_a_server_of_its_own() -> None:
    own = EnsembleMember(spec="openai:b", base_url=OTHER)
    assert servers("openai:a", SERVER, own) == [SERVER, OTHER]
    assert servers("openai:a", None, own, EnsembleMember(spec="openai:c")) == [None, OTHER, None]


def test_members_are_as_the_first_in_everything_else() -> None:
    first = TeacherSettings(spec="openai:a", timeout=7, ensemble=(EnsembleMember(spec="openai:b"),))
    assert [(member.spec, member.timeout) for member in members(first)] == [("openai:a", 7), ("openai:b", 7)]

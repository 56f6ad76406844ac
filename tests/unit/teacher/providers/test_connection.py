"""The way to a teacher's server."""

from __future__ import annotations

import os

import pytest

from pgkd_agent.config import TeacherSettings
from pgkd_agent.errors import ConfigError
from pgkd_agent.teacher.calls.failures import unavailable
from pgkd_agent.teacher.providers.connection import check_address, is_loopback, proxies_of, straight
from pgkd_agent.teacher.providers.factory import build_teacher


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.9.9.9", True),
        ("https://localhost/v1", True),
        ("http://[::1]:8000", True),
        ("http://0.0.0.0:8000", True),
        ("localhost:11434", True),
        ("http://gpu.localhost:1", True),
        ("http://10.0.0.1:8000", False),
        ("https://api.openai.com/v1", False),
        ("https://localhost.example.org", False),
        ("", False),
        ("http://[::1", False),
    ],
)
def test_what_is_on_this_machine(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


def test_the_environment_is_as_before_after_a_client_was_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.delenv("no_proxy", raising=False)
    before = dict(os.environ)
    with straight("http://127.0.0.1"):
        assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "*"
    with straight("https://example.org"):
        assert dict(os.environ) == before
    assert dict(os.environ) == before


PROXIES = [
    {"ALL_PROXY": "socks5://127.0.0.1:9"},
    {"all_proxy": "socks5h://127.0.0.1:9"},
    {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"},
    {"https_proxy": "no address at all", "http_proxy": "gopher://127.0.0.1:9"},
    {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "10.0.0.0/8,::1/128,[::1]:99"},
    {"SSL_CERT_FILE": "/not/there.pem"},
]


@pytest.mark.parametrize("spec", ["openai:m", "ollama:m", "anthropic:m", "azure_openai:m", "bedrock_converse:m"])
@pytest.mark.parametrize("variables", PROXIES)
def test_a_client_for_this_machine_is_built_whatever_the_environment_says(
    spec: str, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = ("ANTHROPIC_API_KEY", "AZURE_OPENAI_API_KEY", "OPENAI_API_VERSION", "AWS_ACCESS_KEY_ID", "AWS_REGION")
    for name in (*needed, "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "of-the-tests")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    build_teacher(TeacherSettings(spec=spec, base_url="http://127.0.0.1:7/v1", timeout=7), 64).close()


@pytest.mark.parametrize(
    ("variables", "named"),
    [(PROXIES[0], "ALL_PROXY"), (PROXIES[1], "all_proxy"), (PROXIES[5], "SSL_CERT_FILE"), (PROXIES[3], "http_proxy")],
)
@pytest.mark.parametrize("spec", ["openai:m", "anthropic:m"])
def test_what_no_client_elsewhere_can_be_built_with_is_named(
    spec: str, variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "of-the-tests")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "of-the-tests")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    address = f"https://{named.replace('_', '-')}.example.org/v1"  # clients are kept by address
    with pytest.raises(ConfigError, match=rf"{named}\b.*correct or unset it"):
        build_teacher(TeacherSettings(spec=spec, base_url=address), 64)


def test_a_proxy_is_named_where_a_request_goes_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "inside.example.org")
    assert proxies_of("https://example.org/v1") == ["HTTPS_PROXY"]
    for address in ("https://inside.example.org", "https://127.0.0.1", "http://example.org"):
        assert proxies_of(address) == []
    refused = ConnectionRefusedError("[Errno 111] Connection refused")
    assert "proxy that HTTPS_PROXY names" in str(unavailable(refused, "openai:m", "https://example.org/v1"))
    assert "nothing listens there" in str(unavailable(refused, "openai:m", "http://127.0.0.1:1/v1"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000/v1", "is no address"),
        ("localhost:8000", "is no address"),
        ("http:/127.0.0.1:8000", "is no address"),
        ("http://127.0.0.1:99999/v1", "is no address"),
        ("ftp://host/v1", "is no address"),
        ("http://ho st/v1", "is no address"),
        ("http://host/v1/v1", "try `teacher.base_url=http://host/v1`$"),
        ("http://host/v1/v1/", "try `teacher.base_url=http://host/v1`$"),
        ("http://host/v1/chat/completions", "try `teacher.base_url=http://host/v1`$"),
        ("http://host/v1/models", "try `teacher.base_url=http://host/v1`$"),
    ],
)
def test_an_address_that_cannot_be_right(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_address(url, in_protocol_of_openai=True)


@pytest.mark.parametrize("url", [None, "http://host/v1/", "https://host:1/api", "http://[::1]:8000"])
def test_an_address_that_may_be_right(url: str | None) -> None:
    check_address(url, in_protocol_of_openai=True)

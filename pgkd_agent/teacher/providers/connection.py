"""The way to a teacher's server: its address, proxies and certificates, and what to do where it does not lead there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import proxy_bypass

from pgkd_agent.errors import ConfigError

THIS_MACHINE = "http://127.0.0.1"
NO_PROXY = ("NO_PROXY", "no_proxy")
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE")
"""Variables that name files; clients read them for any address."""
NOT_SET_UP = "CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|UnsupportedProtocol"
"""In errors of connections that no other try mends."""
_ADVICE = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted here: have SSL_CERT_FILE name a file (PEM) with the "
    "certificate of its authority",
    "WRONG_VERSION_NUMBER": "it does not speak TLS: its address begins with http://, not with https://",
    "(?i)name or service not known|name resolution|getaddrinfo|nodename": "no host of that name is known: check the "
    "address for typing errors, and the network",
    "(?i)refused|failed to connect": "nothing listens there: start the server, or check its port in the address",
}
"""By what the error, or one behind it, says."""
_PROXY_VARIABLE = re.compile("(?i)(https?|all|no)_proxy")
_ABOUT_PROXIES = re.compile("(?i)prox|socks|InvalidURL|invalid (port|url|ip)")
_API_CALLS = re.compile(r"/(chat/completions|completions|responses|models|messages)$")


def check_address(url: str | None, in_protocol_of_openai: bool = False) -> None:
    """
    Args:
        url: As the user wrote it; None for none.
    Raises:
        ConfigError: It is no address, or holds what belongs into the environment: settings are kept in the run
            directory.
    """
    if url is None:
        return
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        is_address = False
    if not is_address or re.search(r"\s", url):
        # Without the address, and without the error: they may hold a password.
        raise ConfigError(
            "teacher.base_url is no address; expected one like https://host:8000/v1 or http://127.0.0.1:8000/v1"
        ) from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            "teacher.base_url holds a name, a password or parameters; keys and passwords belong into the environment"
        )
    if in_protocol_of_openai and (right := _without_calls(url)) != url:
        raise ConfigError(f"the teacher's address {url} is not that of the API; try `teacher.base_url={right}`")


def _without_calls(url: str) -> str:
    """The address of an API without the names of its calls, and with its version once."""
    path = _API_CALLS.sub("", url.rstrip("/"))
    while path.endswith("/v1/v1"):
        path = path.removesuffix("/v1")
    return path if path != url.rstrip("/") else url


def is_loopback(address: str) -> bool:
    host = _parts(address).hostname or ""
    try:
        ip = ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return ip.is_loopback or ip.is_unspecified


@contextmanager
def straight(address: str) -> Iterator[None]:
    """Clients that are built meanwhile ask a server on this machine without a proxy, whatever the environment says.

    To name the host in NO_PROXY would not do: clients stumble over proxies that they make no use of.
    """
    if not is_loopback(address):
        yield
        return
    names = NO_PROXY if _parts(address).scheme == "https" else (*NO_PROXY, *CERTIFICATES)
    before = {name: os.environ.pop(name, None) for name in names}
    os.environ.update(dict.fromkeys(NO_PROXY, "*"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def proxies_of(address: str) -> list[str]:
    """The variables that name a proxy for this address."""
    parts = _parts(address)
    if is_loopback(address) or (parts.hostname and proxy_bypass(parts.hostname)):
        return []
    names = [name for kind in (parts.scheme or "https", "all") for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY")]
    return [name for name in names if os.environ.get(name)]


def misleading(error: Exception) -> str:
    """What of the environment is why no client can be built; empty where it is not to blame."""
    missing = [name for name in CERTIFICATES if (value := os.environ.get(name)) and not Path(value).exists()]
    if isinstance(error, OSError) and missing:
        return f"{' and '.join(missing)} names a file that is not there: correct or unset it"
    names = [name for name in os.environ if _PROXY_VARIABLE.fullmatch(name) and os.environ[name]]
    if names and _ABOUT_PROXIES.search(f"{type(error).__name__}: {error}"):  # all are read, whatever the address
        return f"{', '.join(sorted(names))}: a proxy that cannot be used; correct or unset it"
    return ""


def advice(said: str, address: str) -> str:
    """What to do about a failed connection; empty where nothing particular is known.

    Args:
        said: By the error and those behind it.
    """
    found = next((advice for sign, advice in _ADVICE.items() if re.search(sign, said)), "")
    names = proxies_of(address)
    if not names or re.search(NOT_SET_UP, said):
        return found
    return f"requests go through the proxy that {' and '.join(names)} names: correct it, or name the host in NO_PROXY"


def _parts(address: str) -> SplitResult:
    try:
        return urlsplit(address if "://" in address else f"//{address}")
    except ValueError:
        return urlsplit("")

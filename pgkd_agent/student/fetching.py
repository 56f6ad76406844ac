"""Ask the model hub, once and not for long: where there is none, its own client would try for half a minute."""

from __future__ import annotations

import logging
import queue
import threading
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, get_token, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError

logger = logging.getLogger(__name__)

HUB_SECONDS = 3.0
"""How long the model hub may take to say that it is there; a download may take as long as it takes."""


def fetch_file(source: str, file: str) -> Path | None:
    """A file of a hub model, from the cache where it is there; None where the model has none, or no hub answers."""
    cached = try_to_load_from_cache(source, file)
    if cached is not None:
        return Path(cached) if isinstance(cached, str) else None
    try:
        ask_hub(source)
        return Path(hf_hub_download(source, file))
    except EntryNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("student %s: whether it has a %s is not known (%s); taken as if not", source, file, error)
        return None


def is_cached(source: str) -> bool:
    """Whether the configuration of a hub model is on this machine."""
    return isinstance(try_to_load_from_cache(source, "config.json"), str)


def is_on_hub(source: str) -> bool:
    """Whether a model is in the cache, or on a hub that answers."""
    if is_cached(source):
        return True
    try:
        ask_hub(source)
    except ConnectionError:
        return False
    return True


def ask_hub(source: str) -> None:
    """Ask for the model's configuration.

    Raises:
        ConnectionError: The hub is not there within `HUB_SECONDS`, is out of order, or does not know the model.
        ValueError: No name of a model.
    """
    if constants.HF_HUB_OFFLINE:
        raise ConnectionError("not asked: HF_HUB_OFFLINE is set")
    url = hf_hub_url(source, "config.json")
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answers.put(get_session().head(url, headers=headers, follow_redirects=False, timeout=2 * HUB_SECONDS))
        except Exception as error:  # the client and its transport have several of their own
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()  # the client has no limit for all of it, and none for a name
    try:
        answer = answers.get(timeout=HUB_SECONDS)
    except queue.Empty:
        raise ConnectionError(f"{constants.ENDPOINT} does not answer within {HUB_SECONDS:g} seconds") from None
    if isinstance(answer, Exception):
        raise ConnectionError(f"{constants.ENDPOINT}: {str(answer) or type(answer).__name__}") from answer
    code = answer.headers.get("X-Error-Code")
    if code == "RepoNotFound" or (answer.status_code == 404 and code is None):
        raise ConnectionError(f"{constants.ENDPOINT} does not know it, or not without a login")
    if answer.status_code >= 500:
        raise ConnectionError(f"{constants.ENDPOINT} answers with status {answer.status_code}")

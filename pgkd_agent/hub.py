"""Put a saved model on the model hub, or on another server that speaks its protocol (`HF_ENDPOINT`)."""

from __future__ import annotations

from pathlib import Path

from pgkd_agent.errors import ConfigError, StorageError

LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


def check_hub(repo: str) -> None:
    """Whether a model could be pushed there, as far as can be told without asking: before hours of training.

    Raises:
        ConfigError: The name is none that a repository may have, or there is no token.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ConfigError(f"{repo!r} is no name of a repository, expected OWNER/NAME or NAME: {error}") from error
    if get_token() is None:
        raise ConfigError(f"no token for the model hub; {LOGIN}")


def push(model: Path, repo: str, public: bool = False) -> str:
    """Upload all files of a saved model, its card included, as one commit.

    Args:
        model: A folder such as `models/best` of a run.
        repo: `OWNER/NAME`, or `NAME` under the account of the token; made where it is not there yet, and what it holds
            under other names stays.
        public: Of a repository that is made now; one that is there stays as it is.
    Returns:
        Address of the repository.
    Raises:
        ConfigError: No such model, or see `check_hub`.
        StorageError: The hub refuses, or does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the client that it uses

    if not (model / "config.json").is_file():
        raise ConfigError(f"{model} is no saved model: it has no config.json; expected e.g. runs/NAME/models/best")
    check_hub(repo)
    try:
        made = HfApi().create_repo(repo, private=not public, exist_ok=True)
        HfApi().upload_folder(repo_id=made.repo_id, folder_path=model, commit_message="Upload by pgkd-agent")
    except (HTTPError, OSError, ValueError) as error:  # ValueError: an answer that is none of a hub
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        again = f"pgkd push {model} {repo}{' --public' if public else ''}"
        raise StorageError(f"{model} is whole, and was not pushed to {repo}: {reason} Try again: {again}") from error
    return str(made)

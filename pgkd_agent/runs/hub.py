"""Put a saved model on the model hub, or on another server that speaks its protocol (`HF_ENDPOINT`)."""

from __future__ import annotations

import shlex
from pathlib import Path

from pgkd_agent.errors import ConfigError, StorageError

LOGIN = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


def check_hub(repo: str, public: bool = False) -> None:
    """Ask the hub whether a model may be put there: before it is trained for hours.

    Args:
        public: Whether it may be a repository that everybody sees.
    Raises:
        ConfigError: The name is none of a repository, there is no token, or the repository is there for everybody.
        StorageError: The hub does not answer.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if get_token() is None:
        raise ConfigError(f"no token for the model hub; {LOGIN}")
    try:
        is_private = HfApi().repo_info(repo).private
    except HFValidationError as error:
        raise ConfigError(f"{repo!r} is no name of a repository, expected OWNER/NAME: {error}") from error
    except RepositoryNotFoundError:  # it will be made
        return
    except Exception as error:  # the client and its transport have several of their own
        raise StorageError(f"the model hub cannot be asked about {repo}: {_reason(error)}") from error
    if not is_private and not public:
        raise ConfigError(
            f"the repository {repo} is there, and everybody sees it: push with `public=True`, or name another"
        )


def push(model: Path, repo: str, public: bool = False) -> str:
    """Upload all files of a saved model, its card included, as one commit.

    Args:
        model: A folder such as `models/best` of a run, or the run's own.
        repo: `OWNER/NAME`; made where it is not there yet, and what it holds under other names stays.
        public: Whether everybody may see it: a new repository is made so, and one that is there stays as it is.
    Returns:
        Address of the repository.
    Raises:
        ConfigError: No such model, or see `check_hub`.
        StorageError: The hub refuses, or does not answer.
    """
    from huggingface_hub import HfApi

    from pgkd_agent.student.pretrained import model_folder

    model = model_folder(model)
    check_hub(repo, public)
    try:
        made = HfApi().create_repo(repo, private=not public, exist_ok=True)
        HfApi().upload_folder(
            repo_id=made.repo_id,
            folder_path=model,
            commit_message="Upload by pgkd-agent",
            ignore_patterns=["*.new"],  # what a killed process left half written
        )
    except Exception as error:  # as above; the one that uploads has its own too
        again = shlex.join(["pgkd", "push", str(model), repo, *(["--public"] if public else [])])
        raise StorageError(
            f"{model} is whole, and was not pushed to {repo}: {_reason(error)}; {LOGIN}. To try again: {again}"
        ) from error
    return str(made)


def _reason(error: Exception) -> str:
    """What the server says, in one line; else what its client makes of it."""
    said = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return " ".join(said.split()).rstrip(".")

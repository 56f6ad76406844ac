"""Keys of providers as the environment has them."""

import os
import re
from collections.abc import Collection

from pgkd_agent.errors import TeacherUnavailableError

_KEY = re.compile(r"[!-~]*")


def tidy_keys(names: Collection[str], spec: str) -> None:
    """Take blanks and line ends off keys, as files and shells leave them there: clients send keys as they are.

    Args:
        names: Of the variables; empty takes all that are named like keys.
        spec: Of the teacher.
    Raises:
        TeacherUnavailableError: What is left is no key.
    """
    for name in names or [name for name in os.environ if name.endswith("_API_KEY")]:
        value = os.environ.get(name, "")
        key = value.strip()
        if not _KEY.fullmatch(key) or key[:1] in ("'", '"'):
            raise TeacherUnavailableError(
                f"teacher {spec}: {name} holds a character that is in no key, such as a quotation mark around it, a "
                "blank within it or a letter with an accent; set it again"
            )
        if key != value:
            os.environ[name] = key

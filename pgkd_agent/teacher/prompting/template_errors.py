"""What Jinja, or a template itself, raises: a mistake in the template, in words and with its line."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import jinja2

from pgkd_agent.errors import PromptError


@contextmanager
def blaming(what: str) -> Iterator[None]:
    """Whatever Jinja or the template itself raises is a mistake in the template.

    A template is code: it calls filters and methods, which raise what they like, and Jinja translates it to Python,
    which has limits of its own. No list of exceptions would be complete, and nothing of ours runs in here.
    """
    try:
        yield
    except PromptError:  # from within, and said already
        raise
    except Exception as error:
        raise PromptError(f"{what}{_line_of(error)}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """Messages of Jinja as they are; of others with the type, since a KeyError only says a name."""
    if isinstance(error, jinja2.TemplateError):
        return error.message or ""
    # A SyntaxError's text ends with a line of the Python that Jinja made.
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"


def _line_of(error: Exception) -> str:
    """Where in the template it went wrong, as Jinja writes it into the traceback."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return f", line {lines[-1]}" if lines else ""

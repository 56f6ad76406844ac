from __future__ import annotations

import math
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from pgkd_agent.teacher.providers.dialect import alternatives


def read(content: Any) -> Any:
    return alternatives(AIMessage("x", response_metadata={"logprobs": {"content": content}}))


@pytest.mark.parametrize(
    "content",
    [
        None,
        "no list",
        [],
        [None],
        [{"token": 1, "logprob": -0.1}],
        [{"token": "x", "logprob": None, "top_logprobs": []}],
        [{"token": "x", "logprob": "-Infinity"}],
        [{"token": "x", "logprob": math.nan, "top_logprobs": [{"token": "y", "logprob": -1.0}]}],
        [{"token": "x", "logprob": 800.0}],
        [{"token": "x", "logprob": -0.1}, {"top_logprobs": []}],
    ],
)
def test_a_reply_without_a_probability_in_every_place_has_none(content: Any) -> None:
    assert read(content) == ()


def test_what_stands_there_comes_first_and_what_cannot_be_read_is_left_out() -> None:
    others = [None, {"token": "y", "logprob": -2}, {"token": "x", "logprob": -5.0}, {"token": "z", "logprob": "?"}]
    assert read([{"token": "x", "logprob": -0.1, "top_logprobs": others}]) == ((("x", -0.1), ("y", -2.0)),)
    assert read([{"token": "x", "logprob": 1e-7, "top_logprobs": "none"}]) == ((("x", 0.0),),)
    assert read([{"token": "x", "logprob": -math.inf}]) == ((("x", -1e4),),)


def test_a_message_without_them_has_none() -> None:
    assert alternatives(AIMessage("x")) == ()
    assert alternatives(AIMessage("x", response_metadata={"logprobs": None})) == ()

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage

from pgkd_agent.testing import ScriptedChatModel, ScriptError


def test_a_script_is_played_in_order_and_remembered() -> None:
    script = ["one", AIMessage("two"), lambda messages: f"you said {messages[-1].text}"]
    with ScriptedChatModel(script) as model:
        assert [model.invoke(text).text for text in ("a", "b", "c")] == ["one", "two", "you said c"]
        assert model.prompt_text == "a\nb\nc" and len(model.prompts) == 3
        with pytest.raises(ScriptError, match="call 4, but the script has 3 replies"):
            model.invoke("d")


def test_what_is_bound_is_remembered_and_errors_are_raised() -> None:
    with ScriptedChatModel([ValueError("down"), "up"]) as model:
        with pytest.raises(ValueError, match="down"):
            model.invoke("a")
        assert model.bind_tools([], seed=7).invoke("b").text == "up"
    assert model.settings == [{}, {"tools": [], "seed": 7}]


def test_replies_left_over_are_an_error_unless_another_one_is_on_its_way() -> None:
    with pytest.raises(ScriptError, match="2 of 2 scripted replies were not asked for"), ScriptedChatModel(["a", "b"]):
        pass
    with pytest.raises(KeyError), ScriptedChatModel(["a"]):
        raise KeyError

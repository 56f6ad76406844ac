"""The teacher as a LangChain chain: what callbacks see of it, and the chain by itself."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, get_usage_metadata_callback
from langchain_core.globals import set_llm_cache
from langchain_core.runnables import RunnableLambda

from pgkd_agent import build_config, distill, open_chain
from pgkd_agent.errors import BudgetExceededError, PromptError
from pgkd_agent.testing import ScriptedChatModel
from tests.integration.conftest import TOPICS, sentences
from tests.integration.loopback import Answer
from tests.integration.openai_server import completion, serve
from tests.integration.test_agent import LOOKS_UP, openai_call
from tests.integration.test_distill import FIRST, SECOND
from tests.integration.test_resume import write_samples
from tests.integration.test_teachers import config_for

TRAIN, VALIDATION = sentences(12, 0), sentences(5, 1)
VALUES = {"taxonomy": [{"name": name, "description": ""} for name in TOPICS], "num_samples": 2}


class Seen(BaseCallbackHandler):
    """(KD step, request, attempt, model) of each call, and its tokens, in the order in which they ended."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int, int, str]] = []
        self.tokens = 0
        self.models: set[str | None] = set()
        self.tags: list[list[str]] = []
        self._begun: dict[Any, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def on_chat_model_start(self, *_args: Any, run_id: Any, metadata: Any, tags: Any, **kwargs: Any) -> None:
        with self._lock:
            bound = kwargs["invocation_params"]
            self._begun[run_id] = {**metadata, "attempt": bound.get("attempt", metadata["attempt"])}
            self.models.add(metadata.get("ls_model_name"))
            self.tags.append(tags)

    def on_llm_end(self, response: Any, *, run_id: Any, **_kwargs: Any) -> None:
        message, begun = response.generations[0][0].message, self._begun[run_id]
        with self._lock:
            self.tokens += message.usage_metadata["total_tokens"]
            where = (begun["kd_step"], begun["request_index"], begun["attempt"])
            self.calls.append((*where, message.response_metadata["model_name"]))


def watched(config: Any, seen: BaseCallbackHandler, **given: Any) -> Any:
    """A run under a RunnableConfig: what is in it holds for all that the run asks."""
    run = RunnableLambda(lambda rows: distill(rows, VALIDATION, config=config, **given))
    return run.invoke(TRAIN, {"callbacks": [seen], "tags": ["mine"]})


def test_callbacks_see_every_call_of_a_run_once_also_those_of_threads(tiny_student: Path) -> None:
    seen = Seen()
    with serve(write_samples) as server:
        watched(config_for(tiny_student, server, **{"teacher.max_concurrency": 3}), seen)
    assert len(server.requests) == 12
    assert sorted(seen.calls) == [(step, index, 0, "openai:m") for step in (1, 2) for index in range(6)]
    assert seen.tokens == 12 * 120 and seen.models == {"m"} and all("mine" in tags for tags in seen.tags)


def test_follow_ups_and_verification_are_calls_like_others(tiny_student: Path) -> None:
    def reply(call: int, body: dict[str, Any]) -> Answer:
        if "Text-to-classifiy" in body["messages"][0]["content"]:
            return completion('{"class_label": "tools"}')
        return completion("Pardon?" if call == 0 else FIRST)

    seen = Seen()
    flags = {"guardrails.verify": True, "pgkd.num_kd_steps": 1, "teacher.prompt": "paper", "pgkd.pgkd_batch_size": 2}
    with serve(reply) as server:
        watched(config_for(tiny_student, server, **flags), seen)
    assert [call[:3] for call in seen.calls[:2]] == [(1, 0, 0), (1, 0, 1)]
    assert sorted(call[:3] for call in seen.calls[2:]) == [(1, 0, 0), (1, 1, 0)] and len(server.requests) == 4


def test_callbacks_see_every_call_of_an_agent_once(tiny_student: Path) -> None:
    seen = Seen()
    flags = {"teacher.mode": "agent", "teacher.prompt": None, "pgkd.num_kd_steps": 1}
    with serve(lambda number, _body: openai_call(*LOOKS_UP[number])) as server:
        watched(config_for(tiny_student, server, **flags), seen)
    assert seen.calls == [(1, 0, attempt, "openai:m") for attempt in range(5)] and seen.tokens == 5 * 120


def test_langchain_adds_tokens_up_and_its_cache_does_not_answer(tiny_student: Path) -> None:
    set_llm_cache(InMemoryCache())
    try:
        with get_usage_metadata_callback() as usage, serve(write_samples) as server:
            distill(TRAIN, VALIDATION, config=config_for(tiny_student, server))
    finally:
        set_llm_cache(None)
    assert len(server.requests) == 12
    assert {model: used["total_tokens"] for model, used in usage.usage_metadata.items()} == {"openai:m": 12 * 120}


def chain_config(**flags: Any) -> Any:
    return build_config(flags={"teacher.prompt": "paper", "teacher.structured": "text", **flags})


def values() -> dict[str, Any]:
    pools = {pool: [] for pool in ("few_shot", "correct", "misclassified", "hard_negatives")}
    return {**VALUES, **pools, "classification_report": "no report"}


def test_a_chain_by_itself_asks_a_call_once(tmp_path: Path) -> None:
    log = tmp_path / "calls.sqlite"
    with ScriptedChatModel([FIRST, SECOND]) as model, open_chain([*TOPICS], chain_config(), model, log) as chain:
        first = chain.invoke(values())
        assert [sample.model_dump() for sample in first.samples] == json.loads(FIRST)["samples"]
        assert chain.invoke(values()) == first
        second = chain.invoke(values(), {"metadata": {"kd_step": 2}})
        assert second != first and len(chain.batch([values()] * 3, {"max_concurrency": 3})) == 3
    with ScriptedChatModel([]) as silent, open_chain([*TOPICS], chain_config(), silent, log) as chain:
        assert chain.invoke(values(), {"metadata": {"kd_step": 2}}) == second


def test_prompt_and_schema_ask_for_one_number_of_samples() -> None:
    with serve(lambda _call, _body: completion(FIRST)) as server:
        server_of = {"teacher.spec": "openai:m", "teacher.base_url": server.base_url, "pgkd.pgkd_batch_size": 7}
        with open_chain([*TOPICS], chain_config(**server_of)) as chain:
            chain.invoke(values())
            chain.invoke({name: value for name, value in values().items() if name != "num_samples"})
            with pytest.raises(PromptError, match="num_samples is 0; expected a whole number"):
                chain.invoke({**values(), "num_samples": 0})
    for body, number in zip(server.requests, (2, 7), strict=True):
        asked = body["messages"][-1]["content"]
        assert f"Write exactly {number}," in asked and "32" not in asked


def test_a_chain_by_itself_keeps_caps_and_says_what_is_missing() -> None:
    config = chain_config(**{"budget.max_calls": 1})
    with ScriptedChatModel([json.dumps({"samples": []})]) as model, open_chain([*TOPICS], config, model) as chain:
        assert chain.invoke(values()).samples == ()
        with pytest.raises(BudgetExceededError, match="max_calls is 1"):
            chain.invoke(values(), {"metadata": {"kd_step": 2}})
        with pytest.raises(PromptError, match="needs values for: classification_report"):
            chain.invoke(VALUES)

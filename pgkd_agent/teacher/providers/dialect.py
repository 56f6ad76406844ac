"""How each provider wants a question put, and how its answer is read back.

What a model rejects (a temperature, a seed, a schema) is left out from then on, once, and that is said.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from pgkd_agent.types import Alternatives, TokenUsage

logger = logging.getLogger(__name__)

Level = Literal["json_schema", "json_object", "tool", "text"]
"""How the form of an answer is asked for, strictest first."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a provider takes in a call.

    Attributes:
        levels: Forms of an answer, the one to begin with first; after a refusal the next is tried.
        seed: Whether sampling can be seeded: in the call, or as a field of LangChain's model.
        response_format: Where the schema travels. In the body, the client leaves the answer as it came; as an
            argument, some clients parse it themselves and lose a reply that was cut off.
        array_bounds: Whether the schema may fix the number of samples.
        max_tokens_field: The server reads `max_tokens` only, not `max_completion_tokens`.
        prefix_cache: llama.cpp's `cache_prompt`: what begins like the call before is not read again.
        logprobs: Of how many tokens that could have stood in a place of the reply their probability comes along; 0
            where no probabilities come.
    """

    levels: tuple[Level, ...] = ("text",)
    seed: Literal["call", "field"] | None = None
    response_format: Literal["body", "call"] = "body"
    array_bounds: bool = False
    max_tokens_field: bool = False
    prefix_cache: bool = False
    logprobs: int = 0


REPLY_LENGTH_FIELDS = ("max_tokens", "max_completion_tokens", "num_predict", "max_output_tokens", "max_new_tokens")
"""Where LangChain's models keep the length of a reply."""

ANSWER_TOOL = "answer"
_REASONING = {"reasoning_content", "reasoning", "thinking", "redacted_thinking"}
"""Where LangChain's models keep what a model said to itself."""

_SIGNS = {
    "temperature": r"(?i)temperature",
    "seed": r"(?i)\bseed\b",
    # Not one that calls it too large: such a server may read no other name, and replies would have no limit.
    "max_tokens": r"(?is)(?=.*max_tokens).*(not supported|unsupported|unknown|unrecogni[sz]ed|unexpected|same time)",
    "logprobs": r"(?i)log_?prob",
    "level": r"(?i)format\b|json_schema|json_object|structured.?output|tool|function.?call|guided|grammar",
}
"""Words by which a refusal names the setting it is about."""


FEW_LOGPROBS = 5
"""Asked for where a server does not allow as many as OpenAI."""
_NUM_LOGPROBS = r"(?i)top_?logprobs"
"""What a refusal is about that may only be about their number."""
_LEAST_LOGPROB = -1e4


class Dialect:
    """Puts questions the way a model takes them; shared by all calls of a run, from several threads.

    Args:
        structured: Forced form of the answer; `auto` begins with the provider's first and goes on to the next where it
            is rejected.
    """

    def __init__(self, capabilities: Capabilities, structured: Level | Literal["auto"] = "auto") -> None:
        self.capabilities = capabilities
        self._levels: Sequence[Level] = capabilities.levels if structured == "auto" else (structured,)
        self._lock = threading.Lock()
        self._dropped: set[str] = set()
        self._level = 0
        self._most_logprobs = capabilities.logprobs

    @property
    def level(self) -> Level:
        return self._levels[self._level]

    def wanted(
        self,
        model: BaseChatModel,
        seed: int,
        schema: Mapping[str, Any] | None = None,
        cached: bool = False,
        logprobs: bool = False,
    ) -> dict[str, Any]:
        """What should go with a call besides the messages; the same before and after something was dropped.

        Args:
            schema: Of the answer; None for one in words.
            cached: What the prompt begins with comes again in the next call.
            logprobs: The probabilities of the reply's tokens are asked for.
        """
        can = self.capabilities
        settings: dict[str, Any] = {
            "temperature": getattr(model, "temperature", None),
            "seed": seed if can.seed else None,
            "max_tokens": longest_reply(model),
            "cache_prompt": True if can.prefix_cache and cached else None,
            "logprobs": can.logprobs if logprobs and can.logprobs else None,
        }
        if schema is not None:
            settings |= {"level": self._levels[0], "schema": schema}
        return {name: value for name, value in settings.items() if value is not None}

    def allowed(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """`wanted` without what the model rejected before."""
        settings = {name: value for name, value in wanted.items() if name not in self._dropped}
        if "level" in settings:
            settings["level"] = self.level
        if "logprobs" in settings:
            settings["logprobs"] = self._most_logprobs
        return settings

    def bind(self, model: BaseChatModel, settings: Mapping[str, Any]) -> Runnable[Any, AIMessage]:
        """The model with the settings in the form that its provider reads."""
        can = self.capabilities
        fields = {"temperature": None} if "temperature" in self._dropped else {}
        if can.seed == "field":
            fields["seed"] = settings.get("seed")
        if fields:
            model = model.model_copy(update=fields)
        call: dict[str, Any] = {"seed": settings["seed"]} if can.seed == "call" and "seed" in settings else {}
        if "logprobs" in settings:
            call |= {"logprobs": True, "top_logprobs": settings["logprobs"]}
        body: dict[str, Any] = {}
        if response_format := _response_format(settings):
            (body if can.response_format == "body" else call)["response_format"] = response_format
        if can.max_tokens_field and "max_tokens" in settings:
            body["max_tokens"] = settings["max_tokens"]
        if "cache_prompt" in settings:
            body["cache_prompt"] = True
        if body:
            call["extra_body"] = body
        if settings.get("level") == "tool":
            return _with_tool(model, settings["schema"]).bind(**call)  # type: ignore[no-any-return]
        return model.bind(**call)

    def drop(self, error: BaseException, sent: Mapping[str, Any]) -> bool:
        """Leave out, from now on, what the error says the model rejects.

        Args:
            sent: The settings of the call that was rejected.
        Returns:
            Whether asking again makes sense: something was left out, or another thread did so meanwhile.
        """
        said = str(error)
        names = ["temperature", "seed", "logprobs"]
        if self.capabilities.max_tokens_field:  # elsewhere it is the only limit, under any name
            names.append("max_tokens")
        with self._lock:
            if sent.get("logprobs", 0) > FEW_LOGPROBS and re.search(_NUM_LOGPROBS, said):
                self._most_logprobs = FEW_LOGPROBS
                return True
            for name in names:
                if sent.get(name) is not None and re.search(_SIGNS[name], said):
                    if name not in self._dropped:
                        self._dropped.add(name)
                        logger.warning("the teacher's model takes no %s; it is left out from now on", name)
                    return True
            if "level" in sent and re.search(_SIGNS["level"], said):
                if sent["level"] != self.level:
                    return True
                if self._level + 1 < len(self._levels):
                    self._level += 1
                    change = f"does not take answers as {sent['level']}; asking as {self.level} from now on"
                    logger.warning("the teacher's model %s", change)
                    return True
        return False


def longest_reply(model: BaseChatModel) -> int | None:
    """Tokens; None where the model was built without a limit."""
    for name in REPLY_LENGTH_FIELDS:
        value = getattr(model, name, None)
        if isinstance(value, int) and value > 0:  # Ollama takes -1 for no limit
            return value
    return None


def _response_format(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """OpenAI's spelling of how the answer should look."""
    if settings.get("level") == "json_schema":
        schema = {"name": ANSWER_TOOL, "strict": True, "schema": settings["schema"]}
        return {"type": "json_schema", "json_schema": schema}
    return {"type": "json_object"} if settings.get("level") == "json_object" else None


def _with_tool(model: BaseChatModel, schema: Mapping[str, Any]) -> Any:
    function = {"name": ANSWER_TOOL, "description": "Give the answer.", "parameters": dict(schema)}
    tool = {"type": "function", "function": function}
    try:
        return model.bind_tools([tool], tool_choice="any")
    except ValueError:  # the model cannot be made to call a tool, only offered one
        return model.bind_tools([tool])


def reply_text(answer: AIMessage) -> str:
    """What the model wrote; of a tool call its arguments, also those that were cut off and are no JSON."""
    parts = [str(answer.text)]
    parts += [json.dumps(call["args"], ensure_ascii=False) for call in answer.tool_calls]
    parts += [str(call.get("args") or "") for call in answer.invalid_tool_calls]
    return "\n".join(filter(None, parts))


def alternatives(answer: AIMessage) -> Alternatives:
    """What could have stood in each place of the reply; empty where the provider does not say so for every place."""
    logprobs = answer.response_metadata.get("logprobs")
    places = logprobs.get("content") if isinstance(logprobs, dict) else None
    found = []
    for place in places if isinstance(places, list) else []:
        if not _has_logprob(place):
            return ()
        others = place.get("top_logprobs")
        chances: dict[str, float] = {}
        for one in filter(_has_logprob, [place, *(others if isinstance(others, list) else [])]):
            chances.setdefault(one["token"], float(max(min(one["logprob"], 0), _LEAST_LOGPROB)))  # two may look alike
        found.append(tuple(chances.items()))
    return tuple(found)


def _has_logprob(one: Any) -> bool:
    """A little above 0 is rounding; not a number is neither."""
    if not isinstance(one, dict) or not isinstance(one.get("token"), str):
        return False
    logprob = one.get("logprob")
    return isinstance(logprob, int | float) and logprob < 1


def says_no_logprobs(error: BaseException) -> bool:
    """OpenAI answers with 403 where a model gives none, as if a key were wrong."""
    return re.search(_SIGNS["logprobs"], str(error)) is not None


def finish_reason(answer: AIMessage) -> str:
    """Why the model stopped, in its provider's words; `refusal` where it declined."""
    metadata = answer.response_metadata
    if answer.additional_kwargs.get("refusal"):
        return "refusal"
    reasons = (metadata.get(key) for key in ("finish_reason", "stop_reason", "stopReason", "done_reason"))
    return str(next(filter(None, reasons), ""))


def token_usage(answer: AIMessage) -> TokenUsage:
    """As the provider reports it; 0 where it does not."""
    usage = answer.usage_metadata
    return TokenUsage(usage["input_tokens"], usage["output_tokens"]) if usage else TokenUsage()


def with_whole_calls(answer: AIMessage) -> AIMessage:
    """Every call of a tool has an id: what answers it is told by that."""
    for call in (*answer.tool_calls, *answer.invalid_tool_calls):
        call["id"] = call["id"] or f"call_{uuid4().hex[:12]}"
    return answer


def emptiness(answer: AIMessage) -> str:
    """What came instead of a text, as the provider put it; empty where there is one."""
    if reply_text(answer).strip():
        return ""
    blocks = answer.content if isinstance(answer.content, list) else []
    kinds = {str(block.get("type")) for block in blocks if isinstance(block, dict)}
    fields = sorted((kinds | answer.additional_kwargs.keys()) & _REASONING)
    said = f"all that came is in the field '{fields[0]}'" if fields else "there is no text"
    reason = finish_reason(answer)
    said = answer.response_metadata.get("note") or said
    return f"{said}, finish reason {reason!r}" if reason else str(said)

"""OpenAI's chat completions as servers send them: brought into their form before a client reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from pgkd_agent.teacher.prompting.json_reading import pieces

REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
"""Of a message: where servers put what the model said to itself."""

_OF_A_COMPLETION = {"choices", "usage", "id", "object"}
"""Keys by which an answer without `choices` is told from one of something else than this API."""


def mending(model_class: Any) -> Any:
    """A LangChain class of this protocol that reads what servers send: whatever it is, it is at worst an empty reply.

    What was sent instead of a text is in `response_metadata` under `note`.
    """

    class Mending(model_class):  # type: ignore[misc]
        def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> Any:
            body, note = mended(response)
            result = super()._create_chat_result(body, generation_info)
            if note:
                result.generations[0].message.response_metadata["note"] = note
            return result

    Mending.__name__ = Mending.__qualname__ = model_class.__name__
    return Mending


def mended(response: Any) -> tuple[Any, str]:
    """The answer with one choice in due form, and what was there instead of a text, in words; else empty.

    Errors, and what is no answer of this API, stay as they are.
    """
    dump = getattr(response, "model_dump", None)
    body = dump(warnings=False, exclude_unset=True) if dump else response
    is_page = isinstance(body, str) and body.lstrip().startswith("<")
    if is_page or (isinstance(body, dict) and (body.get("error") or _is_other(body))):
        return body, ""
    if not isinstance(body, dict):
        return _completion({}, {}, {}), f"the body is {json.dumps(body, default=str)[:80]}"
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return _completion(body, {}, {}), f"'choices' is {json.dumps(choices, default=str)[:80]}"
    message = choice.get("message")
    if not isinstance(message, dict):
        return _completion(body, choice, {}), f"a choice whose 'message' is {json.dumps(message, default=str)[:80]}"
    field = next((name for name in REASONING_FIELDS if message.get(name)), "")
    note = f"all that came is in the field '{field}'" if field else ""
    if problem := choice.get("error"):
        note = f"an error: {json.dumps(problem, default=str)[:200]}"
    completion = _completion(body, choice, message)
    written = completion["choices"][0]["message"]
    return completion, "" if written["content"] or written["tool_calls"] else note


def _is_other(body: Mapping[str, Any]) -> bool:
    return bool(body) and not _OF_A_COMPLETION & body.keys()


def _completion(body: Mapping[str, Any], choice: Mapping[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    reason, refusal = choice.get("finish_reason"), message.get("refusal")
    whole = {
        "role": "assistant",
        "content": _text(message.get("content")),
        "tool_calls": [_call(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else [],
        "refusal": str(refusal) if refusal else None,
    }
    kept = {name: body.get(name) for name in ("id", "model", "created", "system_fingerprint")}
    choices = [{"index": 0, "message": whole, "finish_reason": None if reason is None else str(reason)}]
    if isinstance(logprobs := choice.get("logprobs"), dict):
        choices[0]["logprobs"] = logprobs
    return {**kept, "object": "chat.completion", "choices": choices, "usage": _usage(body.get("usage"))}


def _text(content: Any) -> str:
    """Of a text, or of a list of parts."""
    if isinstance(content, list):
        return "".join(map(_text, content))
    if isinstance(content, dict) and content.get("type") in (None, "text", "output_text"):
        return _text(content.get("text"))
    return content if isinstance(content, str) else ""


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A tool call with an id, a name, and arguments that are an object or, for the agent to be told, no JSON."""
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    given, number = function.get("arguments"), call.get("id")
    arguments = json.dumps(given) if isinstance(given, dict) else given if isinstance(given, str) else ""
    whole = [piece.value for piece in pieces(arguments) if piece.is_whole]
    if len(whole) == 1 and isinstance(whole[0], dict):
        arguments = json.dumps(whole[0])
    elif arguments.strip() in ("", "null"):
        arguments = "{}"
    elif whole:
        arguments = f"no object: {arguments}"
    name = str(function.get("name") or call.get("name") or "unnamed")
    identity = str(number) if number not in (None, "") else f"call_{uuid4().hex[:12]}"
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _usage(usage: Any) -> dict[str, Any] | None:
    if not isinstance(usage, dict):
        return None
    counts = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
    numbers = {name: int(value) for name, value in counts.items() if isinstance(value, int | float) and value > 0}
    details = {name: part for name, part in usage.items() if name.endswith("_details") and isinstance(part, dict)}
    return {**details, **numbers, "total_tokens": sum(numbers.values())} if numbers else None

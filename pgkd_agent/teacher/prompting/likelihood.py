"""How likely an LLM found each of a few answers, from what it could have written in place of the one that it gave."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

from pgkd_agent.types import Alternatives

LEAST_CHANCE = 1e-4
"""Of an answer that is not among the likeliest ones anywhere."""


def chances(places: Alternatives, answer: str, answers: Sequence[str]) -> tuple[float, ...]:
    """The probability of each answer among these, along the tokens of the one that was given.

    At each token stand the likeliest others with their probabilities, and each of them begins some of the answers. What
    was not written is not followed further: answers that begin alike and turn away together share what they have.

    Args:
        places: Of the whole reply.
        answer: What was answered: a value in JSON, or the beginning of the reply, spelled like this.
        answers: All that could be, `answer` among them.
    Returns:
        Each at least `LEAST_CHANCE`; empty where the reply has no probabilities, or another spelling.
    """
    written = "".join(place[0][0] for place in places)
    in_json = {name: json.dumps(name, ensure_ascii=False)[1:-1] for name in answers}
    if values := list(re.finditer(rf':\s*"(?={re.escape(in_json[answer])}")', written)):
        start, spelled = values[-1].end(), list(in_json.values())
    elif written.lstrip().startswith(answer):
        start, spelled = len(written) - len(written.lstrip()), list(answers)
    else:
        return ()
    given = spelled[list(answers).index(answer)]
    found = dict.fromkeys(spelled, 0.0)
    possible, so_far, offset = spelled, 1.0, 0
    for place in places:
        if offset > start + len(given) or possible == [given]:
            break
        (token, logprob), *others = place
        if offset + len(token) > start:
            before, begun = written[offset:start], written[start:offset]
            for other, other_logprob in others:
                meant = _begun_by(begun, other.removeprefix(before), possible)
                for name in meant:
                    found[name] += so_far * math.exp(other_logprob) / len(meant)
            possible = _begun_by(begun, token.removeprefix(before), possible) or [given]
            so_far *= math.exp(logprob)
        offset += len(token)
    found[given] += so_far
    total = sum(found.values())
    return tuple(max(chance / total, LEAST_CHANCE) for chance in found.values()) if total else ()


def _begun_by(begun: str, token: str, answers: Sequence[str]) -> list[str]:
    """The answers that go on with a token, or end in it with a quotation mark, after what is begun of them."""
    said = begun + token if begun else token.lstrip()  # tokens with a blank before them mean the same at the beginning
    return [name for name in answers if said and (name.startswith(said) or said.startswith(f'{name}"'))]

"""Screen the teacher's samples before they become training rows.

A rejection is data: it names its rule and the reason, is counted, and never raises.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rapidfuzz import fuzz, process

from pgkd_agent.config import GuardrailSettings
from pgkd_agent.errors import ConfigError
from pgkd_agent.loop.degenerate import Leaks, repetition
from pgkd_agent.loop.history import History, HistoryRow
from pgkd_agent.loop.likeness import TextIndex
from pgkd_agent.text import label_key, normalize, well_formed, without_controls
from pgkd_agent.types import GeneratedSample, Label, Source, TokenUsage, label_names


@dataclass(frozen=True, slots=True)
class Rejected:
    text: str
    label: str
    request_index: int
    rule: str
    reason: str
    source: Source = "written"


@dataclass(frozen=True, slots=True)
class Screened:
    """Every sample is in one of the two, in input order; the label of an accepted one is of the taxonomy.

    The rest is of the model calls that screening took: how many, their tokens, and the cap that ended them.
    """

    accepted: tuple[HistoryRow, ...]
    rejected: tuple[Rejected, ...]
    num_requests: int = 0
    usage: TokenUsage = field(default_factory=TokenUsage)
    stopped_by: str = ""

    @property
    def rejected_by_rule(self) -> dict[str, int]:
        return dict(Counter(item.rule for item in self.rejected))


@dataclass
class ScreenState:
    """What a check may look at; texts are in normal form. Grows as samples are accepted."""

    shown: frozenset[str]
    known: list[str]
    known_set: set[str]
    accepted_per_class: Counter[str] = field(default_factory=Counter)


Check = Callable[[str, str, ScreenState], str | None]
"""(normalised text, resolved label, state) -> the reason for a rejection, or None."""


MORE_THAN_ASKED = "more_than_asked"
SHORTEST, LONGEST = 3, 4000
"""Of a sample's text, in characters."""
LEAST_PER_CLASS = 16
"""Samples of one class that a KD step may bring, however few are asked for."""


def class_cap(batch_size: int) -> int:
    """Most accepted samples of one class in a KD step that asks for so many: half of them."""
    return max(LEAST_PER_CLASS, batch_size // 2)


OF_WRITTEN_TEXT = {"length", "prompt_copy", "class_cap", "label_leak", "repetition"}
"""Rules that say nothing of a text that was there, as people wrote it."""


class Guardrails:
    """The rules in order; the first that objects names the rejection.

    `label` (not in the taxonomy), `empty`, `length`, `label_leak` and `repetition` (see `degenerate`), `prompt_copy`,
    `duplicate`, `near_duplicate`, `held_out` (equals or nearly equals a validation or test text), `class_cap`,
    `more_than_asked`.

    Between steps the texts of the history are kept in normal form with an index over them, so that a step pays for
    the rows that are new. Memory a row: its text once more, and about 70 bytes.

    Args:
        held_out: Validation and test texts; they are compared with, never shown to the teacher.
        extra: Further checks by name, run after the built-in ones.
        most: Samples that a step asks for, and so the most that it keeps, the first of each request, of one class
            `class_cap`; None is no limit.
    Raises:
        ConfigError: One of them has the name of a built-in one.
    """

    def __init__(
        self,
        settings: GuardrailSettings,
        taxonomy: Sequence[Label],
        held_out: Iterable[str] = (),
        extra: Mapping[str, Check] | None = None,
        most: int | None = None,
    ) -> None:
        self._settings = settings
        self._most = most
        self._resolve = LabelResolver(taxonomy)
        self._leaks = Leaks(label_names(taxonomy), self._resolve)
        self._held_out = TextIndex(sorted({normalize(text) for text in held_out}))
        self._known = _KnownTexts(self._leaks)
        self._checks: dict[str, Check] = {
            "empty": lambda text, _label, _state: None if text else "no text",
            "length": self._length,
            "label_leak": lambda text, label, _state: self._leaks.find(text, label),
            "repetition": lambda text, _label, _state: repetition(text),
            "prompt_copy": lambda text, _label, state: "repeats a text of the prompt" if text in state.shown else None,
            "duplicate": lambda text, _label, state: "already in the history" if text in state.known_set else None,
            "near_duplicate": self._near_duplicate,
            "held_out": lambda text, _label, _state: self._near(text, self._candidates(text, self._held_out)),
            "class_cap": self._class_cap,
        }
        if taken := sorted({*self._checks, "label", "verification", MORE_THAN_ASKED} & (extra or {}).keys()):
            raise ConfigError(
                f"checks of your own are named {', '.join(taken)} as built-in ones are; name them otherwise"
            )
        self._checks |= extra or {}

    def screen(
        self, samples: Sequence[GeneratedSample], history: History, shown_texts: frozenset[str], kd_step: int = 0
    ) -> Screened:
        self._known.follow(history)
        state = ScreenState(frozenset(map(normalize, shown_texts)), list(self._known.texts), set(self._known.texts))
        accepted: list[HistoryRow] = []
        rejected: list[Rejected] = []
        written: list[str] = []
        for sample in map(_cleaned, samples):
            text, label = normalize(sample.text), self._resolve(sample.label)
            objection = self._objection(text, label, sample, state)
            if objection or label is None:
                rule, reason = objection or ("label", "unknown")
                rejected.append(Rejected(sample.text, sample.label, sample.request_index, rule, reason, sample.source))
                continue
            accepted.append(
                HistoryRow(sample.text.strip(), label, kd_step, sample.request_index, sample.source, sample.shares)
            )
            written.append(sample.label)
            state.known.append(text)
            state.known_set.add(text)
            state.accepted_per_class[label] += 1
        over = _over(accepted, self._most)
        reason = f"more than the {self._most} that the step asked for"
        rejected += [
            Rejected(row.text, label, row.request_index, MORE_THAN_ASKED, reason)
            for number, (row, label) in enumerate(zip(accepted, written, strict=True))
            if number in over
        ]
        return Screened(tuple(row for number, row in enumerate(accepted) if number not in over), tuple(rejected))

    def _objection(
        self, text: str, label: str | None, sample: GeneratedSample, state: ScreenState
    ) -> tuple[str, str] | None:
        if label is None:
            return "label", f"{sample.label!r} is not in the taxonomy"
        for rule, check in self._checks.items():
            if rule in OF_WRITTEN_TEXT and sample.source == "labelled":
                continue
            reason = check(text, label, state)
            if reason:
                return rule, reason
        return None

    def _length(self, text: str, _label: str, _state: ScreenState) -> str | None:
        is_fine = SHORTEST <= len(text) <= LONGEST
        return None if is_fine else f"{len(text)} characters, allowed {SHORTEST} to {LONGEST}"

    def _near_duplicate(self, text: str, _label: str, state: ScreenState) -> str | None:
        accepted_now = state.known[len(self._known.texts) :]
        return self._near(text, [*self._candidates(text, self._known.index), *accepted_now])

    def _candidates(self, text: str, index: TextIndex) -> list[str]:
        return index.candidates(text, self._settings.near_duplicate_ratio)

    def _near(self, text: str, others: Sequence[str]) -> str | None:
        match = process.extractOne(text, others, scorer=fuzz.ratio, score_cutoff=self._settings.near_duplicate_ratio)
        return f"{match[1]:.0f} % alike to another row" if match else None

    def _class_cap(self, _text: str, label: str, state: ScreenState) -> str | None:
        cap = None if self._most is None else class_cap(self._most)
        is_full = cap is not None and state.accepted_per_class[label] >= cap
        return f"more than {cap} of this class in one step" if is_full else None


class _KnownTexts:
    """The texts of a history in normal form, in its order, and an index over them."""

    def __init__(self, leaks: Leaks) -> None:
        self._leaks = leaks
        self._rows: tuple[HistoryRow, ...] = ()
        self.texts: list[str] = []
        self.index = TextIndex()

    def follow(self, history: History) -> None:
        """Add the rows that are new; another history than the one before starts anew."""
        if history.rows[: len(self._rows)] != self._rows:
            self.texts, self.index, self._rows = [], TextIndex(), ()
            self._leaks.forget()
        added = history.rows[len(self._rows) :]
        new = [normalize(row.text) for row in added]
        for row, text in zip(added, new, strict=True):
            if row.is_real:
                self._leaks.learn(text, row.label)
        self.texts += new
        self.index.extend(new)
        self._rows = history.rows


def _cleaned(sample: GeneratedSample) -> GeneratedSample:
    """Without control characters, whoever made it: from here on it goes to terminals, reports and exports."""
    text, label = (well_formed(without_controls(part)) for part in (sample.text, sample.label))
    return replace(sample, text=text, label=label)


def _over(accepted: Sequence[HistoryRow], most: int | None) -> set[int]:
    """Numbers of the written rows beyond `most`: the last of their requests."""
    if most is None:
        return set()
    seen: Counter[int] = Counter()
    ranks: list[tuple[int, int]] = []
    for number, row in enumerate(accepted):
        if row.source == "labelled":
            continue
        ranks.append((seen[row.request_index], number))
        seen[row.request_index] += 1
    return {number for _, number in sorted(ranks)[most:]}


_QUOTES = "\"'`*_~\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d\u300e\u300f"
_DECORATED = re.compile(
    rf"""(?:[{_QUOTES}]+(.+?)[{_QUOTES}]+    # "refund"
    |\[(.+)\]|\((.+)\)|<(.+)>|\{{(.+)\}}|【(.+)】
    |[*_]*(?:label|class|category|intent|topic|class_label)[*_]*\s*[:=\uff1a][*_]*(.+)    # label: refund
    |(?:\#+|[-*+•>])\s+(.+)    # - refund
    |\(?\d+[.):]\s*(?=[^\W\d]|\s)(.+)    # 2. refund
    |(.+?)(?:[.,;:!。]+|\*+))""",
    re.DOTALL | re.IGNORECASE | re.VERBOSE,
)


class LabelResolver:
    """Map a written label to the taxonomy where that is unambiguous, else to None.

    Case, white space, separators (`_ - / & ,`), typographic signs and invisible characters do not matter. Nor does what
    is put around a label, of which one layer after the other is taken off: quotes, brackets, Markdown, a number or the
    word "label" before it, a full stop after it; but not where two labels would then be the same.
    """

    def __init__(self, taxonomy: Sequence[Label]) -> None:
        self._exact = set(label_names(taxonomy))
        keys = Counter(map(_label_key, self._exact))
        self._by_key = {_label_key(name): name for name in self._exact if keys[_label_key(name)] == 1}
        bare = Counter(_label_key(_layers(name)[-1]) for name in self._exact)
        self._alone = {name for name in self._exact if bare[_label_key(_layers(name)[-1])] == 1}

    def __call__(self, written: str) -> str | None:
        whole, *inner = _layers(written)
        if found := self._find(whole):
            return found
        return next((name for name in map(self._find, inner) if name in self._alone), None)

    def _find(self, written: str) -> str | None:
        return written if written in self._exact else self._by_key.get(_label_key(written))


def _layers(written: str) -> list[str]:
    """A label as it is written, and then with one decoration after the other taken off."""
    layers = [written]
    while layers[-1] and (found := _DECORATED.fullmatch(layers[-1].strip())):
        layers.append(next(filter(None, found.groups())))
    return layers


def _label_key(label: str) -> str:
    return " ".join(re.sub(r"[_\-/&,]+", " ", label_key(label)).split())

"""Evaluate a teacher that classifies by itself over labelled rows, keeping every answer as it comes in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task, Taxonomy
from pgkd_agent.errors import BudgetExceededError, ConfigError
from pgkd_agent.files import append_lines, as_line, lock_beside, storing
from pgkd_agent.metrics.report import classification_report
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.estimates import Estimate, estimate_run
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.preview import zero_shot_tokens
from pgkd_agent.teacher.prompting.answer import LABEL_TEMPERATURE, LABEL_TOKENS
from pgkd_agent.teacher.prompting.templates import load_prompt
from pgkd_agent.teacher.prompting.tokens import estimate_tokens, shown
from pgkd_agent.types import ClassificationReport, Example, TokenUsage, label_names

if TYPE_CHECKING:
    from pgkd_agent.teacher.zero_shot import ZeroShotAnswer, ZeroShotClassifier

SHORTEST_ANSWER = 8
"""Tokens of a label in JSON."""

OUTSIDE = -1
"""Class id of an unresolved answer: wrong for every gold label."""


@dataclass(frozen=True, slots=True)
class ZeroShotResult:
    """Over all rows, those answered in an earlier run with the same file included.

    Attributes:
        predicted: The label of each row, None for the unresolved ones.
        unresolved: Numbers, from 1, of the rows whose answer names no label, or more than one; they count as wrong.
        usage: Tokens of all answers.
        seconds: Wall time of this run's calls, without the start of a local server; 0 where none was needed.
        asked: Rows asked in this run.
    """

    report: ClassificationReport
    predicted: tuple[str | None, ...]
    unresolved: tuple[int, ...]
    usage: TokenUsage
    seconds: float
    asked: int


def evaluate_zero_shot(
    rows: Sequence[Example],
    taxonomy: Taxonomy,
    config: PGKDConfig,
    answers: Path,
    on_answer: Callable[[int, int], None] = lambda answered, unresolved: None,
    on_estimate: Callable[[Estimate], None] = lambda estimate: None,
    few_shot: Sequence[Example] = (),
    on_wait: Callable[[str], None] | None = None,
) -> ZeroShotResult:
    """Ask the teacher for the label of every row.

    Args:
        rows: Labels within the taxonomy.
        answers: JSON lines with the answers. A file that a stopped evaluation of the same rows left is continued; the
            caps hold for all its parts together, by the call log beside it (`calls_beside`).
        on_answer: Told the rows answered and the unresolved ones among them after each answer.
        on_estimate: Told what the rows that are left will take, before the first call.
        few_shot: Labelled rows for the prompt, where its template shows them.
        on_wait: Told how far a batch job is.
    Raises:
        ConfigError: The file belongs to other rows, another teacher or another prompt; nothing in it is touched.
        TeacherError: See `build_teacher`; or the provider failed for good, or a cap was reached: the answers so far are
            in the file.
    """
    from pgkd_agent.teacher.standalone import open_zero_shot

    store = _Answers(answers, _identity(rows, taxonomy, config, few_shot))
    left = {number: row.text for number, row in enumerate(rows, 1) if number not in store.by_row}
    on_estimate(_estimate(left, taxonomy, config, few_shot))
    seconds = 0.0
    if left:
        with ExitStack() as stack:
            stack.callback(lock_beside(answers).release)
            store = _Answers(answers, store.identity)  # another process may have written it until now
            store.mend()
            left = {number: text for number, text in left.items() if number not in store.by_row}
            budget = Budget(config.budget, load_prices(config.teacher.prices))
            log = calls_beside(answers)
            opened = open_zero_shot(None, taxonomy, config, budget, log, few_shot, on_wait=on_wait)
            classifier = stack.enter_context(opened)
            seconds = _ask(classifier, store, rows, left, on_answer)
    answered = [store.by_row[number] for number in range(1, len(rows) + 1)]
    index = {name: position for position, name in enumerate(label_names(taxonomy))}
    class_ids = [index.get(row["predicted"], OUTSIDE) for row in answered]
    return ZeroShotResult(
        report=classification_report([index[row.label] for row in rows], class_ids, taxonomy),
        predicted=tuple(row["predicted"] for row in answered),
        unresolved=tuple(sorted(store.unresolved)),
        usage=sum(map(_usage, answered), TokenUsage()),
        seconds=seconds,
        asked=len(left),
    )


def _ask(
    classifier: ZeroShotClassifier,
    store: _Answers,
    rows: Sequence[Example],
    left: Mapping[int, str],
    on_answer: Callable[[int, int], None],
) -> float:
    """The wall time that it took."""
    try:
        classifier.check()
        started = time.perf_counter()
        for number, answer in classifier.classify(left):
            store.add(_row(number, rows[number - 1], answer))
            on_answer(len(store.by_row), len(store.unresolved))
    except BudgetExceededError as error:
        raise BudgetExceededError(
            f"{error}. {len(store.by_row)} of {len(rows)} rows are answered; under a higher cap the same "
            f"command goes on (answers in {store.path}, all calls in {calls_beside(store.path)})"
        ) from error
    return time.perf_counter() - started


def with_description(config: PGKDConfig, task: Task) -> PGKDConfig:
    """The settings with what the task is about, which a dataset of the paper says by itself."""
    return config.changed({"data.task_description": task.description})


def calls_beside(answers: Path) -> Path:
    """The call log that belongs to a file of answers: what they cost, failed calls included."""
    return answers.with_name(f"{answers.name}.calls.sqlite")


def _row(number: int, row: Example, answer: ZeroShotAnswer) -> dict[str, Any]:
    reply = answer.reply
    return {
        "row": number,
        "text": row.text,
        "label": row.label,
        "predicted": answer.label,
        "reply": reply.text,
        "input_tokens": reply.usage.input_tokens,
        "output_tokens": reply.usage.output_tokens,
        "estimated_calls": reply.usage.estimated_calls,
        "batch": reply.usage.is_batch,
        "seconds": round(reply.seconds, 3),
    }


def _usage(row: Mapping[str, Any]) -> TokenUsage:
    usage = TokenUsage(row["input_tokens"], row["output_tokens"], row.get("estimated_calls", 0))
    return usage.in_batch() if row.get("batch") else usage


def _estimate(left: Mapping[int, str], taxonomy: Taxonomy, config: PGKDConfig, few_shot: Sequence[Example]) -> Estimate:
    same = zero_shot_tokens(taxonomy, config.data.task_description, config, few_shot)
    prompts = [same + estimate_tokens(shown(text)) for text in left.values()]
    replies = (len(left) * SHORTEST_ANSWER, len(left) * LABEL_TOKENS)
    teacher, prices = config.teacher, load_prices(config.teacher.prices)
    return estimate_run([teacher.spec], 1, prompts, prompts, replies, prices, teacher.batch)


def _identity(rows: Sequence[Example], taxonomy: Taxonomy, config: PGKDConfig, few_shot: Sequence[Example]) -> Any:
    """What has to be the same for answers to belong together."""
    import hashlib

    from pgkd_agent.teacher.providers.factory import server_of

    template = load_prompt(config.zero_shot.prompt, "zero_shot", config.teacher.prompt_folder)
    content = json.dumps([[row.text, row.label] for row in rows], ensure_ascii=False)
    identity = {
        "teacher": config.teacher.spec,
        "server": server_of(config.teacher),
        "structured": config.teacher.structured,
        "temperature": LABEL_TEMPERATURE,
        "seed": config.seed,
        "prompt": template.name,
        "prompt_sha256": template.hash,
        "task_description": config.data.task_description,
        "rows": len(rows),
        "rows_sha256": hashlib.sha256(content.encode()).hexdigest(),
        "taxonomy": [[label.name, label.description] for label in taxonomy],
        **({"few_shot": [[row.text, row.label] for row in few_shot]} if few_shot else {}),
    }
    return json.loads(json.dumps(identity))


class _Answers:
    """The file with the answers: one line that says whose they are, then one a row, on disk as they come.

    It is made with the first answer, so that nothing is left where a teacher cannot be reached.
    """

    def __init__(self, path: Path, identity: Any) -> None:
        self.path = path
        self.identity = identity
        self._whole = 0
        self.by_row: dict[int, dict[str, Any]] = {}
        self.unresolved: set[int] = set()
        if path.exists():
            self._read(identity)

    def add(self, row: dict[str, Any]) -> None:
        is_begun = self.path.exists() and self.path.stat().st_size
        append_lines(self.path, [row] if is_begun else [self.identity, row])
        self._count(row)

    def _count(self, row: dict[str, Any]) -> None:
        self.by_row[row["row"]] = row
        if row["predicted"] is None:
            self.unresolved.add(row["row"])

    def _read(self, identity: Any) -> None:
        try:
            content = self.path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]  # a stopped run may have left half a line
            self._whole = len(whole)
            if not whole and as_line(identity).encode("utf-8", "backslashreplace").startswith(content):
                return  # killed within its first line
            first, *rest = map(json.loads, whole.splitlines())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path} exists and holds no zero-shot answers; name another `out`") from error
        if first != identity:
            other = sorted(key for key in identity if not isinstance(first, dict) or first.get(key) != identity[key])
            raise ConfigError(
                f"{self.path} holds the answers of another evaluation (different: {', '.join(other)}); "
                "name another `out`"
            )
        for row in rest:
            self._count(row)

    def mend(self) -> None:
        """Cut off half a line of a stopped run, for who holds the file."""
        if self.path.exists() and self._whole < self.path.stat().st_size:
            with storing(self.path), self.path.open("r+b") as file:
                file.truncate(self._whole)

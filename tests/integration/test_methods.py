"""Methods to compare: real students, and an LLM behind a loopback server."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import Task, prepare_task
from pgkd_agent.errors import ConfigError, TeacherOutputError
from pgkd_agent.experiments.methods import Outcome, PlainFits, Setting, loops, rows, run_method
from pgkd_agent.experiments.methods.eda import from_table
from pgkd_agent.experiments.methods.loops import RepeatingTeacher
from pgkd_agent.student import recipe
from pgkd_agent.student.student import TorchStudent
from pgkd_agent.types import Example, FitResult, Label
from tests.integration.conftest import TOPICS, sentences
from tests.integration.openai_server import Answer, OpenAIServer, completion, failure, serve
from tests.unit.builders import request_of

WORDS = from_table({word: [other for other in words if other != word] for words in TOPICS.values() for word in words})


@pytest.fixture(autouse=True)
def synonyms(monkeypatch: pytest.MonkeyPatch) -> None:
    """WordNet need not be installed here: words of a topic stand in for synonyms."""
    for module in (rows, loops):
        monkeypatch.setattr(module, "wordnet_synonyms", lambda _folder: WORDS)


@pytest.fixture(scope="module")
def task() -> Task:
    labels = tuple(Label(name) for name in TOPICS)
    return prepare_task(sentences(12, 0), sentences(5, 1), sentences(10, 2), taxonomy=labels)


def run_in(folder: Path, method: str, task: Task, config: PGKDConfig, **options: Any) -> Outcome:
    accepted = options.pop("accepted", None)
    return run_method(method, Setting(task, config, folder, accepted=accepted), options)


def test_plain_learns_and_counts_its_steps(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    outcome = run_in(tmp_path, "plain", task, config)
    right = sum(name == row.label for name, row in zip(outcome.predicted, task.test, strict=True))
    assert right > 0.6 * len(task.test) and outcome.rows == 48
    assert outcome.gradient_steps % 3 == 0 and 3 <= outcome.gradient_steps <= 24  # 48 rows in batches of 16, 8 epochs
    assert outcome.accepted == () and outcome.requests == 0


def test_the_plain_student_takes_rows_of_rare_classes_again(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    rare = replace(
        task, train=tuple(row for number, row in enumerate(task.train) if row.label != "fruit" or number < 4)
    )
    steps = {}
    for balance in (0.0, 1.0, 3.0):
        changed = config.changed({"student.balance": balance, "student.max_epochs": 2})
        outcome = run_in(tmp_path, "plain", rare, changed)
        assert outcome.rows == len(rare.train)
        steps[balance] = outcome.gradient_steps
    assert steps == {0.0: 6, 1.0: 6, 3.0: 14}  # of two epochs: up to 9 a class fill a batch, up to 28 take four more


def test_a_control_repeats_real_rows_as_often_as_pgkd_accepted(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    accepted = ({"fruit": 3, "tools": 1}, {}, {"fruit": 14})
    outcome = run_in(tmp_path, "control", task, config, accepted=accepted)
    assert outcome.accepted == accepted and outcome.rows == 48 + 18
    with pytest.raises(ConfigError, match="name the method it belongs to"):
        run_in(tmp_path, "control", task, config)


def test_frozen_samples_come_step_by_step_and_are_screened_by_this_seeds_rows(
    tmp_path: Path, task: Task, config: PGKDConfig
) -> None:
    fresh = [
        Example(f"{text} of old", label) for text, label in (("a ripe mango", "fruit"), ("the loud cow", "animals"))
    ]
    pool = ([fresh[0], Example(task.validation[0].text, "fruit")], [Example(task.test[0].text, "fruit")], fresh)
    impatient = config.changed({"pgkd.patience_limit": 0})
    outcome = run_method("frozen", Setting(task, impatient, tmp_path, pool=pool))
    assert outcome.accepted == ({"fruit": 1}, {}, {"animals": 1}) and outcome.rows == 48 + 2
    assert outcome.requests == 0
    with pytest.raises(ConfigError, match="name the method it belongs to"):
        run_in(tmp_path, "frozen", task, config)


def test_frozen_samples_may_come_at_once_and_be_only_the_first(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    written = [Example(f"{word} was sold at dawn", "fruit") for word in ("mango", "papaya", "quince", "lychee")]
    setting = Setting(task, config, tmp_path, pool=(written[:1], [], written[1:]))
    assert run_method("frozen", setting).accepted == ({"fruit": 1}, {}, {"fruit": 3})
    assert run_method("frozen", setting, {"at_once": True}).accepted == ({"fruit": 4},)
    assert run_method("frozen", setting, {"samples": 2}).accepted == ({"fruit": 1}, {}, {"fruit": 1})
    assert run_method("frozen", setting, {"samples": 1}).accepted == ({"fruit": 1},)
    with pytest.raises(ConfigError, match=r"to take 5 samples, and the run .* accepted 4"):
        run_method("frozen", setting, {"samples": 5})


def test_the_plain_student_is_trained_once_for_all_loops_of_a_seed(
    tmp_path: Path, task: Task, config: PGKDConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[int] = []
    took: list[float] = []
    fit = TorchStudent.fit

    def counted(self: TorchStudent, rows: Any, validation: Any, kd_step: int, *args: Any, **kwargs: Any) -> FitResult:
        fits.append(kd_step)
        started = time.perf_counter()
        result = fit(self, rows, validation, kd_step, *args, **kwargs)
        took.append(time.perf_counter() - started)
        return result

    monkeypatch.setattr(TorchStudent, "fit", counted)
    setting = Setting(task, config, tmp_path, accepted=({"fruit": 3},))
    alone = run_method("control", replace(setting, plain_fits=PlainFits()))
    plain, control, again = (run_method(name, setting) for name in ("plain", "control", "plain"))
    assert fits == [0, 1, 0, 1]  # the last plain student came from where the first was kept
    assert (control.predicted, control.gradient_steps) == (alone.predicted, alone.gradient_steps)
    assert control.validation_loss == alone.validation_loss
    assert again.predicted == plain.predicted and again.seconds > took[2]  # as if it had been fitted
    other = replace(setting, config=config.changed({"seed": 2}))
    run_method("plain", other)
    assert fits[4:] == [0]


def test_a_loop_follows_the_recipe_of_its_student_also_where_its_first_fit_was_kept(
    tmp_path: Path, task: Task, config: PGKDConfig
) -> None:
    other = config.changed({"student.learning_rate": (1e-4, 1e-2), "student.max_epochs": 3})
    setting = Setting(task, other, tmp_path, accepted=({"fruit": 3},))
    alone = run_method("control", replace(setting, plain_fits=PlainFits()))
    run_method("plain", setting)
    kept = run_method("control", setting)  # the rate that the kept fit chose holds for the next one too
    assert (kept.predicted, kept.gradient_steps) == (alone.predicted, alone.gradient_steps)
    assert kept.validation_loss == alone.validation_loss
    assert kept.gradient_steps == 2 * 3 * 3 + 3 * 4  # two rates in step 0: 3 epochs of 3 or 4 steps each


def test_rows_are_repeated_in_turns(task: Task) -> None:
    counts = ({"fruit": 5}, {"fruit": 9, "weather": 2})
    teacher = RepeatingTeacher(counts, seed=1)
    first, second = (teacher.write(request_of(task, kd_step)).samples for kd_step in (1, 2))
    assert Counter(row.label for row in second) == Counter(counts[1])
    fruit = [row.text for row in (*first, *second) if row.label == "fruit"]
    real = {row.text for row in task.train if row.label == "fruit"}
    assert set(fruit) == real and max(Counter(fruit).values()) == 2  # 14 of 12: each once before any comes again
    variants = RepeatingTeacher(counts, 1, WORDS).write(request_of(task, 1)).samples
    assert len(variants) == 5 and {row.text for row in variants} - real


def test_shots_are_rows_of_each_class_and_validation_rows_play_no_part(
    tmp_path: Path, task: Task, config: PGKDConfig
) -> None:
    outcome = run_in(tmp_path, "no_augment", task, config, shots=2, steps=20)
    assert outcome.rows == 8 and outcome.gradient_steps == 20 and outcome.validation_loss is None
    other_validation = replace(task, validation=task.test)
    assert run_in(tmp_path, "no_augment", other_validation, config, shots=2, steps=20).predicted == outcome.predicted


def test_eda_adds_variants_of_every_row(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    outcome = run_in(tmp_path, "eda", task, config, shots=2, steps=10, num_aug=4)
    assert outcome.rows == 8 * 5 and outcome.gradient_steps == 12  # 3 batches an epoch, rounded up to whole epochs
    whole = run_in(tmp_path, "eda", task, config, num_aug=1)
    assert whole.rows == 96 and whole.validation_loss is not None


def test_soft_labels_are_for_the_loop_alone(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    def losses(share: float) -> list[float | None]:
        changed = config.changed({"student.soft_labels": share, "student.max_epochs": 6})
        setting = Setting(task, changed, tmp_path, accepted=({"fruit": 3},))
        found = run_method("control", setting), run_method("gradual", setting, {"num_aug": 1})
        return [outcome.validation_loss for outcome in found]

    (control, gradual), (soft_control, soft_gradual) = losses(0.0), losses(0.9)
    assert soft_control != control and soft_gradual == gradual  # both have fits after the first


def test_gradual_begins_with_the_real_rows_and_changes_more_and_more(
    tmp_path: Path, task: Task, config: PGKDConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: list[list[str]] = []
    student_of = rows.unselected_student

    def watched(setting: Setting, epochs: int) -> Any:
        student = student_of(setting, epochs)
        fit = student.fit
        student.fit = lambda these, *more: (stages.append([row.text for row in these]), fit(these, *more))[1]
        return student

    monkeypatch.setattr(rows, "unselected_student", watched)
    outcome = run_in(tmp_path, "gradual", task, config, shots=2, steps=96, num_aug=4)
    assert [len(stage) for stage in stages] == [8, 40, 40, 40, 40, 40]
    assert outcome.gradient_steps == 96  # 1 + 5 x 3 steps an epoch of all stages, 6 epochs each

    def unchanged_words(stage: list[str]) -> int:
        real = stages[0]
        return sum(len(set(text.split()) & set(real[number // 4].split())) for number, text in enumerate(stage[8:]))

    assert unchanged_words(stages[5]) < unchanged_words(stages[1])


def test_zerogen_trains_on_generated_texts_alone(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    def writes(call: int, body: dict[str, Any]) -> Answer:
        prompt = json.dumps(body["messages"])
        label = next(name for name in TOPICS if f'class \\"{name}\\"' in prompt)
        words = TOPICS[label]
        texts = [f"{words[(call + number) % 8]} and {words[(call + 3 * number) % 8]} {call}" for number in range(5)]
        return completion(json.dumps({"samples": [{"text": text, "label": label} for text in texts]}))

    with serve(writes) as server:
        teacher = {"spec": "openai:m", "base_url": server.base_url, "samples_per_request": 5, "max_concurrency": 1}
        changed = config.changed({f"teacher.{name}": value for name, value in teacher.items()})
        outcome = run_in(tmp_path, "zerogen", task, changed, per_class=10)
        prompts = [json.dumps(body["messages"]) for body in server.requests]
        assert not any(row.text in prompt for row in task.train for prompt in prompts)
        calls = len(prompts)
        assert outcome.requests == 8 and outcome.usage.input_tokens > 0 and 20 < outcome.rows <= 36
        again = run_in(tmp_path, "zerogen", task, changed, per_class=10)
        assert again.predicted == outcome.predicted and len(server.requests) - calls <= 1  # the check alone


def test_auggpt_says_each_row_in_other_words_and_keeps_its_label(
    tmp_path: Path, task: Task, config: PGKDConfig
) -> None:
    shown: list[str] = []

    def rephrases(_call: int, body: dict[str, Any]) -> Answer:
        prompt = json.dumps(body["messages"])
        row = next(row for row in task.train if row.text in prompt)
        shown.append(row.text)
        if row.text == shown[0]:
            return completion("I would rather not.")  # the others go on without it
        texts = [" ".join(reversed(row.text.split())), f"so {row.text}", row.text]
        return completion(json.dumps({"samples": [{"text": text, "label": "anything"} for text in texts]}))

    with serve(rephrases) as server:
        teacher = {"spec": "openai:m", "base_url": server.base_url, "prompt": None}
        changed = config.changed({f"teacher.{name}": value for name, value in teacher.items()})
        outcome = run_in(tmp_path, "auggpt", task, changed, shots=2, steps=10, num_aug=3)
    assert len(set(shown)) == 8 and len(shown) == 3 * 8 == outcome.requests  # no label that was written is one
    assert outcome.rows == 7 * 3 + 1  # the real one and two others; what only repeats it does not count


def asked_of(config: PGKDConfig, server: OpenAIServer, **changes: Any) -> PGKDConfig:
    teacher = {"spec": "openai:m", "base_url": server.base_url, "prompt": None}
    teacher["max_concurrency"] = 1  # which one a cap refuses is no chance
    return config.changed({f"teacher.{name}": value for name, value in {**teacher, **changes}.items()})


def test_sungen_trusts_right_labels_more_than_planted_wrong_ones(
    tmp_path: Path, task: Task, config: PGKDConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher that labels every fifth text wrongly; the weights are those that the last fit was given."""
    wrong: set[str] = set()
    names = list(TOPICS)

    def writes(call: int, body: dict[str, Any]) -> Answer:
        prompt = json.dumps(body["messages"])
        label = next(name for name in TOPICS if f'class \\"{name}\\"' in prompt)
        samples = []
        for number in range(5):
            of = names[(names.index(label) + 1) % 4] if number == 0 else label
            words = TOPICS[of]
            text = f"{words[(call + number) % 8]} {words[(call + 3 * number + 1) % 8]} {words[call % 8]} {call}"
            wrong.update({text} if number == 0 else ())
            samples.append({"text": text, "label": label})
        return completion(json.dumps({"samples": samples}))

    weights: dict[str, float] = {}
    fit = TorchStudent.fit

    def watched(self: TorchStudent, rows: Any, validation: Any, kd_step: int, given: Any = None) -> FitResult:
        weights.update({row.text: weight for row, weight in zip(rows, given, strict=True)})
        return fit(self, rows, validation, kd_step, given)

    monkeypatch.setattr(TorchStudent, "fit", watched)
    monkeypatch.setattr(recipe, "SMALL", replace(recipe.SMALL, head_factor=1.0))  # the tiny head learns fast enough
    with serve(writes) as server:
        changed = asked_of(config, server, samples_per_request=5).changed({"student.learning_rate": 1e-2})
        outcome = run_in(tmp_path, "sungen", task, changed, per_class=20, rounds=12)
        asked = [json.dumps(body["messages"]) for body in server.requests]
    assert {sum(f'class \\"{name}\\"' in prompt for prompt in asked) for name in TOPICS} == {4}  # each class alike
    of_wrong = [weight for text, weight in weights.items() if text in wrong]
    of_right = [weight for text, weight in weights.items() if text not in wrong]
    assert len(of_wrong) >= 8 and len(of_right) >= 30
    assert sum(of_wrong) / len(of_wrong) < 0.85 < 1 < sum(of_right) / len(of_right)
    assert outcome.rows == len(weights) and outcome.gradient_steps > 12 * 4


class EvoServer:
    """A teacher of EvoKD that remembers what it was asked for, in order."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.prompts: list[str] = []

    def __call__(self, call: int, body: dict[str, Any]) -> Answer:
        prompt = json.dumps(body["messages"])
        self.prompts.append(prompt)
        if "Which class" in prompt or "topic classification" in prompt:
            self.kinds.append("label")
            return completion(
                json.dumps({"class_label": "tools" if "hammer" in prompt.split("classifiy")[-1] else "none"})
            )
        if "Say this text" in prompt:
            self.kinds.append("rephrase")
            return completion(json.dumps({"samples": [{"text": f"said otherwise {call}"}]}))
        if "which kinds" in prompt:
            self.kinds.append("analyse")
            return completion(f"ANALYSIS {call}: it knows fruit.")
        self.kinds.append("write")
        words = TOPICS["weather"]
        texts = [f"the hammer of {words[call % 8]} and {words[call // 2]}", f"a shining star {call}"]
        return completion(json.dumps({"samples": [{"text": text, "label": "fruit"} for text in texts]}))


def test_evokd_analyses_then_writes_then_labels(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    says, steps = EvoServer(), {"pgkd.num_kd_steps": 3, "pgkd.pgkd_batch_size": 2}
    with serve(says) as server:
        changed = asked_of(config.changed(steps), server)
        outcome = run_in(tmp_path, "evokd", task, changed, shots=1, steps=8, passes=2)
        assert says.kinds == ["analyse", "write", "label", "label"] * 3
        calls = len(server.requests)
        assert run_in(tmp_path, "evokd", task, changed, shots=1, steps=8, passes=2).predicted == outcome.predicted
        assert len(server.requests) == calls  # all answers were in the log
    first, writing, second, third = (says.prompts[index] for index in (0, 1, 4, 8))
    assert "ANALYSIS" not in first and "ANALYSIS 0" in writing  # the second stage works with the first
    assert "ANALYSIS 0" in second and "ANALYSIS 0" in third and "ANALYSIS 4" in third  # the last two stay
    assert "the hammer of snow" in second and "predicted_label" in second  # the new batch is what the next is made of
    assert outcome.rows == 4 + 3 and outcome.requests == 12  # of a label that is none nothing is made
    assert outcome.gradient_steps == 8 + 3 * 2


def test_what_evokd_had_labelled_when_a_cap_was_reached_is_trained_on(
    tmp_path: Path, task: Task, config: PGKDConfig
) -> None:
    says, steps = EvoServer(), {"pgkd.num_kd_steps": 3, "pgkd.pgkd_batch_size": 2}
    with serve(says) as server:
        changed = asked_of(config.changed(steps), server)
        for calls, kinds in ((3, ["analyse", "write", "label"]), (2, ["analyse", "write"])):
            capped = changed.changed({"budget.max_calls": calls})
            says.kinds.clear()
            if calls == 3:
                outcome = run_in(tmp_path / "some", "evokd", task, capped, shots=1, steps=8, passes=2)
                assert outcome.rows == 4 + 1 and outcome.requests == 3
            else:
                with pytest.raises(TeacherOutputError, match=r"not one sample of EvoKD came of 2 calls: .*max_calls"):
                    run_in(tmp_path / "none", "evokd", task, capped, shots=1, steps=8, passes=2)
            assert says.kinds == kinds


def test_a_prompt_that_is_too_long_is_shortened(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    def narrow(call: int, body: dict[str, Any]) -> Answer:
        prompt = json.dumps(body["messages"])
        if sum(row.text in prompt for row in task.train) > 3:
            return failure(400, "This model's maximum context length is 10 tokens", "context_length_exceeded")
        return EvoServer()(call, body)

    steps = {"pgkd.num_kd_steps": 1, "pgkd.pgkd_batch_size": 2}
    with serve(narrow) as server:
        changed = asked_of(config.changed(steps), server)
        assert run_in(tmp_path / "evokd", "evokd", task, changed, shots=2, steps=8, passes=2).rows == 8 + 1
        assert len(run_in(tmp_path / "few", "few_shot", task, changed, shots=2, rows=3).predicted) == 3


def test_evokd_init_begins_with_rephrased_rows(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    says, steps = EvoServer(), {"pgkd.num_kd_steps": 1, "pgkd.pgkd_batch_size": 2}
    with serve(says) as server:
        changed = asked_of(config.changed(steps), server)
        outcome = run_in(tmp_path, "evokd_init", task, changed, shots=1, steps=8, passes=2, num_aug=1)
    assert says.kinds == ["rephrase"] * 4 + ["analyse", "write", "label", "label"]
    assert outcome.rows == 4 + 4 + 1 and outcome.requests == 8


def test_where_evokd_adds_nothing_the_rephrased_rows_are_trained_on(
    tmp_path: Path, task: Task, config: PGKDConfig, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(EvoServer()) as server:
        changed = asked_of(config, server)
        capped = changed.changed({"budget.max_calls": 6})
        outcome = run_in(tmp_path, "evokd_init", task, capped, shots=1, steps=8, passes=2, num_aug=1)
    assert outcome.rows == 4 + 4 and outcome.gradient_steps == 8 and outcome.requests == 6
    assert "not one sample of EvoKD came of 2 calls" in caplog.text


def test_few_shot_shows_real_rows_and_can_ask_about_a_part(tmp_path: Path, task: Task, config: PGKDConfig) -> None:
    with serve(lambda _call, _body: completion('{"class_label": "fruit"}')) as server:
        changed = asked_of(config, server)
        outcome = run_in(tmp_path / "few", "few_shot", task, changed, shots=2, rows=6)
        prompts = [json.dumps(body["messages"]) for body in server.requests]
        assert len(prompts) == 6 == len(outcome.predicted) == outcome.requests
        shown = [row for row in task.train if row.text in prompts[0]]
        assert Counter(row.label for row in shown) == dict.fromkeys(TOPICS, 2)
        asked = [task.test[number].text for number in outcome.asked or ()]
        assert all(any(text in prompt for prompt in prompts) for text in asked)
        assert outcome.predict_seconds is not None
        again = run_in(tmp_path / "zero", "zero_shot", task, changed, rows=6)
        assert again.asked == outcome.asked and len(server.requests) == 12
        assert not any(row.text in json.dumps(body["messages"]) for body in server.requests[6:] for row in task.train)
        resumed = run_in(tmp_path / "zero", "zero_shot", task, changed, rows=6)
        assert resumed.predicted == again.predicted and resumed.predict_seconds is None


def test_a_control_takes_as_many_steps_as_pgkd_whatever_its_own_losses(
    tmp_path: Path, task: Task, config: PGKDConfig
) -> None:
    impatient = config.changed({"pgkd.patience_limit": 0})
    accepted = tuple({"fruit": 1} for _ in range(4))
    assert run_in(tmp_path, "control", task, impatient, accepted=accepted).accepted == accepted

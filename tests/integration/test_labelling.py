"""`distill(unlabelled=...)` with an LLM that knows the answers, over HTTP."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgkd_agent import distill, resume
from pgkd_agent.config import PGKDConfig
from pgkd_agent.data import read_records
from pgkd_agent.errors import ConfigError, DataError, PGKDError
from pgkd_agent.pipeline import load_task
from pgkd_agent.pipeline import run as run_task
from pgkd_agent.runs.samples import export_samples, prepare_retraining
from pgkd_agent.runs.stored import read_run
from pgkd_agent.student.embedding import Embedder
from pgkd_agent.teacher.annotation import Doubt
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.calls.question import CallId
from pgkd_agent.teacher.preview import estimate, preview
from pgkd_agent.teacher.standalone import open_annotator
from pgkd_agent.types import Label, TeacherReply, TeacherRequest
from tests.integration import bedrock_server
from tests.integration.command_line import pgkd
from tests.integration.conftest import TOPICS, sentences, tiny_config
from tests.integration.loopback import Answer
from tests.integration.openai_server import completion, failure, serve
from tests.integration.test_distill import rows_of

TRAIN, VALIDATION, TEST = sentences(3, 0), sentences(5, 1), sentences(6, 2)
POOL = [row.text for row in sentences(20, 7)]
CAPABLE = {"pgkd.num_kd_steps": 2, "pgkd.labels_per_step": 10, "pgkd.pgkd_batch_size": 0}


def topic(text: str) -> str:
    return next(name for name, words in TOPICS.items() if set(words) & set(text.split()))


def topic_in(prompt: str) -> str:
    """Of the text in the last line of the prompt."""
    return topic(re.findall(r'\{"text": "([^"]*)"\}', prompt)[-1])


def expert(_call: int, body: dict[str, Any]) -> Answer:
    return completion(json.dumps({"class_label": topic_in(body["messages"][-1]["content"])}))


def sure(chance: float, most: int = 20) -> Callable[[int, dict[str, Any]], Answer]:
    """An expert that says how likely each topic is, where it is asked to for at most so many."""

    def answer(call: int, body: dict[str, Any]) -> Answer:
        given = expert(call, body)
        if body.get("logprobs"):
            if body["top_logprobs"] > most:
                return failure(400, f"top_logprobs: input should be less than or equal to {most}")
            right = topic_in(body["messages"][-1]["content"])
            others = [name for name in TOPICS if name != right]
            listed = [(right, chance), *((name, (1 - chance) / len(others)) for name in others)]
            top = [{"token": token, "logprob": math.log(share), "bytes": None} for token, share in listed]
            around = [{"token": token, "logprob": -0.1, "top_logprobs": []} for token in ('{"class_label": "', '"}')]
            places = [around[0], {**top[0], "top_logprobs": top}, around[1]]
            assert isinstance(given.content, dict)
            given.content["choices"][0]["logprobs"] = {"content": places}
        return given

    return answer


def config_of(student: Path, url: str, **values: Any) -> PGKDConfig:
    return tiny_config(student).changed(
        {**CAPABLE, "teacher.spec": "openai:expert", "teacher.base_url": url, "teacher.prompt": "paper", **values}
    )


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")


def test_a_pool_becomes_rows_with_labels(tiny_student: Path, tmp_path: Path) -> None:
    with serve(expert) as server:
        result = distill(
            TRAIN,
            VALIDATION,
            TEST,
            config=config_of(tiny_student, server.base_url),
            unlabelled=POOL,
            out=tmp_path / "r",
        )
        asked = len(server.requests)
    labelled = [row for row in result.training.history.rows if not row.is_real]
    assert len(labelled) == 20 and {row.source for row in labelled} == {"labelled"}
    assert {row.text for row in labelled} <= {*POOL}
    assert sum(row.label == topic(row.text) for row in labelled) >= 18, "the teacher is always right"
    assert asked == len(TRAIN) + 20 + 0, "the gold rows, the texts, and a free check"
    steps = result.training.steps
    assert [step.asked for step in steps] == [0, 10, 10] and steps[1].num_requests == len(TRAIN) + 10
    stored = rows_of(tmp_path / "r" / "history.jsonl")[len(TRAIN) :]
    assert {row["source"] for row in stored} == {"labelled"} and stored[0]["shares"][0][0] == stored[0]["label"]
    assert read_run(tmp_path / "r").task.unlabelled == tuple(POOL)
    check = json.loads((tmp_path / "r" / "gold.json").read_text())
    assert {(row["text"], row["label"]) for row in check["rows"]} == {(row.text, row.label) for row in TRAIN}
    assert all(row["teacher"] == row["label"] for row in check["rows"])
    assert export_samples(tmp_path / "r", tmp_path / "out.csv") == {"accepted": 20}
    reviewed = prepare_retraining(tmp_path / "r", tmp_path / "out.csv")
    again = run_task(reviewed.stored.task, reviewed.config, reviewed.teacher).training.history.rows
    assert [(row.text, row.label, row.source) for row in again] == [
        (row.text, row.label, row.source) for row in result.training.history.rows
    ]
    assert not any(row.shares for row in again), "a person approved the labels"


def test_a_stopped_run_goes_on_and_pays_nothing_twice(tiny_student: Path, tmp_path: Path) -> None:
    config, out = {"teacher.max_concurrency": 1}, tmp_path / "r"
    with serve(expert) as server:
        whole = distill(
            TRAIN, VALIDATION, TEST, config=config_of(tiny_student, server.base_url, **config), unlabelled=POOL
        )
        in_all = len(server.requests)

    def breaks(call: int, body: dict[str, Any]) -> Answer:
        return failure(401, "no such key") if call == len(TRAIN) + 14 else expert(call, body)

    with serve(breaks) as server:
        settings = config_of(tiny_student, server.base_url, **config)
        with pytest.raises(PGKDError):
            distill(TRAIN, VALIDATION, TEST, config=settings, unlabelled=POOL, out=out)
        stopped_after = len(server.requests)
        again = resume(out)
        assert len(server.requests) - stopped_after == in_all - (stopped_after - 1), "what was answered is not asked"
    assert again.training.history.rows == whole.training.history.rows
    assert [step.validation.loss for step in again.training.steps] == [
        step.validation.loss for step in whole.training.steps
    ]


def test_texts_that_are_rows_already_are_left_out_aloud(tiny_student: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = [TEST[0].text.upper(), VALIDATION[0].text, TRAIN[0].text, POOL[0], POOL[0], " "]
    task = load_task(TRAIN, VALIDATION, TEST, unlabelled=texts, config=tiny_config(tiny_student))
    assert task.unlabelled == (POOL[0],)
    assert "of 6 unlabelled texts 3 are labelled rows, and 2 empty or there twice" in caplog.text


def test_writing_and_labelling_in_one_step_by_command_line(tiny_student: Path, tmp_path: Path) -> None:
    def both(call: int, body: dict[str, Any]) -> Answer:
        if "class_label" in body["messages"][-1]["content"]:
            return expert(call, body)
        return completion(json.dumps({"samples": [{"text": "a lemon beside a plum", "label": "fruit"}]}))

    for name, rows in (("train", TRAIN), ("val", VALIDATION), ("test", TEST)):
        lines = [json.dumps({"text": row.text, "label": row.label}) for row in rows]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "pool.txt").write_text("\n".join(POOL), encoding="utf-8")
    with serve(both) as server:
        done = pgkd(
            *("distill", "--train", f"{tmp_path}/train.jsonl", "--val", f"{tmp_path}/val.jsonl"),
            *("--test", f"{tmp_path}/test.jsonl", "--unlabelled", f"{tmp_path}/pool.txt", "--labels-per-step", "5"),
            *("--teacher", "openai:expert", "--base-url", server.base_url, "--student", str(tiny_student)),
            *("--steps", "1", "--set", "student.max_epochs=2", "--out", f"{tmp_path}/run"),
        )
    assert done.returncode == 0, done.stderr
    assert "labelled rows in doubt the teacher names 100% right" in done.stderr
    sources = [row["source"] for row in rows_of(tmp_path / "run" / "history.jsonl")]
    assert sources.count("labelled") == 5 and sources.count("written") == 1


def test_the_bill_and_the_prompt_are_known_before(tiny_student: Path) -> None:
    config = config_of(tiny_student, "http://127.0.0.1:9/v1")
    task = load_task(TRAIN, VALIDATION, unlabelled=POOL, config=config)
    shown = preview(task, config)
    assert shown.requests == [] and POOL[0] in shown.labelling[-1].content
    none = config.changed({"pgkd.labels_per_step": 0, "pgkd.pgkd_batch_size": 8})
    assert preview(task, none).labelling == []
    long = preview(replace(task, unlabelled=("apple " * 1000,)), config).labelling[-1].content
    assert len(long) < 2_000 + len(shown.labelling[-1].content)
    assert "none of these" in shown.labelling[-1].content and '"label": "fruit"' in shown.labelling[-1].content


def test_texts_longer_than_the_student_takes_have_vectors(tiny_student: Path) -> None:
    embed = Embedder(tiny_config(tiny_student).student.changed({"max_length": 10_000}))
    vectors = embed(["apple " * 5_000, "apple"])
    assert vectors.shape[0] == 2 and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_what_cannot_label_is_refused(tiny_student: Path) -> None:
    class Writer:
        def write(self, request: TeacherRequest) -> TeacherReply:
            raise AssertionError("never asked")

    with pytest.raises(ConfigError, match="unlabelled texts need a teacher that is a chat model"):
        distill(TRAIN, VALIDATION, teacher=Writer(), config=tiny_config(tiny_student), unlabelled=POOL)
    config = tiny_config(tiny_student).changed(CAPABLE)
    with pytest.raises(ConfigError, match="label texts and write none, and there are no unlabelled texts"):
        distill(TRAIN, VALIDATION, teacher=Writer(), config=config)
    task = load_task(TRAIN, VALIDATION, config=config, unlabelled=POOL)
    none = config.changed({"pgkd.labels_per_step": 0})
    with pytest.raises(ConfigError, match=r"and `pgkd\.labels_per_step=0` labels none"):
        preview(task, none)
    with pytest.raises(DataError, match=r"no text is left .*of 2 .* 1 are labelled rows, and 1 e"):
        load_task(TRAIN, VALIDATION, config=config, unlabelled=[TRAIN[0].text, " "])


def test_the_bill_is_without_labels_where_none_are_asked_for(tiny_student: Path) -> None:
    for values in ({"pgkd.labels_per_step": 0}, {"pgkd.num_kd_steps": 0}):
        config = config_of(tiny_student, "http://127.0.0.1:9/v1", **{"pgkd.pgkd_batch_size": 8, **values})
        task = load_task(TRAIN, VALIDATION, unlabelled=POOL, config=config)
        bill = estimate(preview(task, config), task, config, ["openai:expert"], load_prices(None))
        assert bill.calls == config.pgkd.num_kd_steps


def test_samples_of_a_run_with_a_pool_are_trained_on(tiny_student: Path, tmp_path: Path) -> None:
    with serve(expert) as server:
        config = config_of(tiny_student, server.base_url, **{"pgkd.num_kd_steps": 1, "pgkd.labels_per_step": 3})
        distill(TRAIN, VALIDATION, TEST, config=config, unlabelled=POOL, out=tmp_path / "run")
    export_samples(tmp_path / "run", tmp_path / "samples.csv")
    done = pgkd("samples", "import", f"{tmp_path}/run", f"{tmp_path}/samples.csv", "--out", f"{tmp_path}/again")
    assert done.returncode == 0 and "3 samples approved" in done.stdout, done.stderr


def test_labels_without_texts_are_refused(tmp_path: Path) -> None:
    done = pgkd("distill", "--train", f"{tmp_path}/none.csv", "--labels-per-step", "5")
    assert done.returncode == 2 and "--labels-per-step is about the texts of --unlabelled" in done.stderr


@pytest.mark.parametrize(
    ("texts", "out", "message"),
    [
        (POOL, "table.xlsx", "unknown format '.xlsx'"),
        (POOL, "", "exists already"),
        ([], "table.csv", "no text is left"),
        ([row.text for row in TRAIN], "table.csv", f"{len(TRAIN)} are labelled rows"),
    ],
)
def test_nothing_is_paid_for_a_table_that_cannot_be(
    tiny_student: Path, tmp_path: Path, texts: list[str], out: str, message: str
) -> None:
    distill(TRAIN, VALIDATION, TEST, steps=0, config=tiny_config(tiny_student), out=tmp_path / "run")
    (tmp_path / "pool.txt").write_text("\n".join(texts), encoding="utf-8")
    with serve(expert) as server:
        done = pgkd(
            *("annotate", f"{tmp_path}/run", f"{tmp_path}/pool.txt", "--teacher", "openai:expert"),
            *("--base-url", server.base_url, "--out", str(tmp_path / out)),
        )
        assert done.returncode == 2 and message in done.stderr, done.stderr
        assert not server.requests


def test_answers_without_a_class_are_counted(tiny_student: Path, tmp_path: Path) -> None:
    distill(TRAIN, VALIDATION, TEST, steps=0, config=tiny_config(tiny_student), out=tmp_path / "run")
    (tmp_path / "pool.txt").write_text("\n".join(POOL), encoding="utf-8")
    with serve(lambda _call, _body: completion("I cannot say")) as server:
        done = pgkd(
            *("annotate", f"{tmp_path}/run", f"{tmp_path}/pool.txt", "--teacher", "openai:expert"),
            *("--base-url", server.base_url, "--out", f"{tmp_path}/table.csv"),
        )
    assert f"{len(TRAIN)} calls, {len(TRAIN)} of them without a class" in done.stdout


def test_a_table_to_review_is_made_outside_a_run_and_trained_on(tiny_student: Path, tmp_path: Path) -> None:
    run, table = tmp_path / "run", tmp_path / "table.csv"
    distill(TRAIN, VALIDATION, TEST, steps=0, config=tiny_config(tiny_student), out=run)
    (tmp_path / "pool.csv").write_text("\n".join(["text", *POOL, TRAIN[0].text]), encoding="utf-8")
    with serve(expert) as server:
        command = (
            *("annotate", str(run), f"{tmp_path}/pool.csv", "--teacher", "openai:expert", "--labels", "7"),
            *("--base-url", server.base_url, "--out", str(table)),
        )
        table.touch()
        assert pgkd(*command).returncode == 2 and not server.requests, "a table that a person may have corrected stays"
        table.unlink()
        done = pgkd(*command)
        assert done.returncode == 0, done.stderr
        asked = len(server.requests)
        first = table.read_text(encoding="utf-8")
        table.unlink()
        assert pgkd(*command).returncode == 0 and len(server.requests) == asked, "all answers are in the file of calls"
    assert table.read_text(encoding="utf-8") == first
    assert f"7 texts labelled; {len(TRAIN) + 7} calls" in done.stdout
    assert "the teacher names 100% right" in done.stderr
    rows = read_records(table)
    assert len(rows) == 7 and {*rows[0]} == {"text", "label", "source", "confidence", "student", "teacher", "others"}
    assert all(row["teacher"] == topic(row["text"]) and row["text"] in POOL for row in rows)
    imported = pgkd("samples", "import", str(run), str(table), "--out", f"{tmp_path}/again")
    assert imported.returncode == 0 and "7 samples approved" in imported.stdout, imported.stderr


def test_a_written_text_is_verified_and_a_labelled_one_is_not_asked_about_again(tiny_student: Path) -> None:
    with serve(expert) as server:
        config = config_of(tiny_student, server.base_url, **{"guardrails.verify": True, "pgkd.num_kd_steps": 1})
        result = distill(TRAIN, VALIDATION, TEST, config=config, unlabelled=POOL)
        assert len(server.requests) == len(TRAIN) + 10
    assert result.training.steps[1].accepted == 10


def shares_by(answer: Callable[[int, dict[str, Any]], Answer], student: Path) -> list[float]:
    """How likely the labels are by both together, in one step; at most one call is refused."""
    with serve(answer) as server:
        config = config_of(student, server.base_url, **{"pgkd.num_kd_steps": 1, "teacher.max_concurrency": 1})
        result = distill(TRAIN, VALIDATION, TEST, config=config, unlabelled=POOL)
        assert len(server.requests) <= len(TRAIN) + 10 + 1
    labelled = [row for row in result.training.history.rows if not row.is_real]
    assert all(row.label == topic(row.text) for row in labelled) and len(labelled) == 10
    return [row.shares[0][1] for row in labelled]


def test_the_probabilities_of_names_decide_how_sure_a_label_is(tiny_student: Path) -> None:
    named, in_doubt, certain = (shares_by(answer, tiny_student) for answer in (expert, sure(0.5), sure(0.98)))
    assert max(in_doubt) <= 1 and min(certain) > 0.97
    assert min(certain) > max(named), "of a class that is only named, no more is known than how often that is right"


def test_a_server_that_gives_fewer_probabilities_is_asked_for_fewer(tiny_student: Path) -> None:
    assert shares_by(sure(0.9, most=5), tiny_student) == shares_by(sure(0.9), tiny_student)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Unrecognized request argument supplied: logprobs"),
        (403, "You are not allowed to request logprobs from this model"),
    ],
)
def test_a_model_that_gives_no_probabilities_is_asked_once(
    tiny_student: Path, status: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    def refuses(call: int, body: dict[str, Any]) -> Answer:
        return failure(status, message) if "logprobs" in body else expert(call, body)

    assert shares_by(refuses, tiny_student) == shares_by(expert, tiny_student)
    assert caplog.text.count("takes no logprobs; it is left out from now on") == 1


def test_probabilities_are_kept_and_a_resumed_run_has_them(tiny_student: Path, tmp_path: Path) -> None:
    def breaks(call: int, body: dict[str, Any]) -> Answer:
        return failure(401, "no such key") if call == len(TRAIN) + 4 else sure(0.9)(call, body)

    with serve(breaks) as server:
        values = {"pgkd.num_kd_steps": 1, "teacher.max_concurrency": 1}
        config = config_of(tiny_student, server.base_url, **values)
        with pytest.raises(PGKDError):
            distill(TRAIN, VALIDATION, TEST, config=config, unlabelled=POOL, out=tmp_path / "run")
        again = resume(tmp_path / "run")
        assert len(server.requests) == len(TRAIN) + 10 + 1
        whole = distill(TRAIN, VALIDATION, TEST, config=config, unlabelled=POOL)
    assert again.training.history.rows == whole.training.history.rows
    with sqlite3.connect(tmp_path / "run" / "calls.sqlite") as calls:
        kept = calls.execute("SELECT alternatives FROM calls WHERE outcome = 'answered'").fetchall()
    assert len(kept) == len(TRAIN) + 10
    assert all(json.loads(places)[1][0][1] == pytest.approx(math.log(0.9)) for (places,) in kept)


def test_bedrock_names_labels_and_refuses_one(
    tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its Converse protocol has no probabilities; what a filter stood in for is no row."""
    bedrock_server.sign_in(monkeypatch)

    def answer(call: int, body: dict[str, Any]) -> Answer:
        if call == 0:
            return bedrock_server.converse("ok")
        if call == 1 + len(TRAIN) + 2:
            return bedrock_server.converse("Sorry, the model cannot answer", "guardrail_intervened")
        label = topic_in(body["messages"][-1]["content"][0]["text"])
        return bedrock_server.tool_use("answer", {"class_label": label})

    with bedrock_server.serve(answer) as server:
        values = {"teacher.spec": "bedrock_converse:some.model", "pgkd.num_kd_steps": 1, "teacher.max_concurrency": 1}
        config = config_of(tiny_student, server.endpoint, **values)
        result = distill(TRAIN, VALIDATION, TEST, config=config, unlabelled=POOL, out=tmp_path / "run")
        asked = len(server.requests)
        assert resume(tmp_path / "run").training.history.rows == result.training.history.rows
        assert len(server.requests) == asked, "nothing is paid twice"
    labelled = [row for row in result.training.history.rows if not row.is_real]
    assert len(labelled) == 9 and all(row.label == topic(row.text) for row in labelled)


def test_a_teacher_is_only_checked_where_no_text_is_wanted(tiny_student: Path, tmp_path: Path) -> None:
    distill(TRAIN, VALIDATION, TEST, steps=0, config=tiny_config(tiny_student), out=tmp_path / "run")
    (tmp_path / "pool.txt").write_text("\n".join(POOL), encoding="utf-8")
    with serve(expert) as server:
        done = pgkd(
            *("annotate", f"{tmp_path}/run", f"{tmp_path}/pool.txt", "--teacher", "openai:expert", "--labels", "0"),
            *("--base-url", server.base_url, "--out", f"{tmp_path}/table.csv"),
        )
        assert len(server.requests) == len(TRAIN)
    assert done.returncode == 0 and "the teacher names 100% right" in done.stderr
    assert "no text was labelled" in done.stdout and not (tmp_path / "table.csv").exists()


def test_odd_probabilities_end_no_run(tiny_student: Path) -> None:
    def odd(call: int, body: dict[str, Any]) -> Answer:
        given = expert(call, body)
        assert isinstance(given.content, dict)
        given.content["choices"][0]["logprobs"] = {"content": [[None], [{"token": "x", "logprob": math.nan}]][call % 2]}
        return given

    assert shares_by(odd, tiny_student) == shares_by(expert, tiny_student)


@pytest.mark.parametrize(("prompt", "is_taken"), [("candidates", False), ("all_labels", True)])
def test_a_prompt_over_all_classes_lets_the_teacher_name_any_of_them(
    tmp_path: Path, tiny_student: Path, prompt: str, is_taken: bool
) -> None:
    taxonomy = [*map(Label, TOPICS)]
    doubt = Doubt(CallId(0, 0), POOL[0], tuple(number for number, name in enumerate(TOPICS) if name != topic(POOL[0])))
    with serve(expert) as server:
        config = config_of(tiny_student, server.base_url, **{"teacher.label_prompt": prompt})
        budget = Budget(config.budget, load_prices())
        with open_annotator(taxonomy, "", config, budget, tmp_path / "calls.sqlite") as annotator:
            ((_number, answer),) = annotator.label([doubt])
        prompt_text = server.requests[-1]["messages"][-1]["content"]
    word = answer.word
    assert (word is not None) == is_taken and answer.is_readable == is_taken
    if word:
        assert taxonomy[word.label].name == topic(POOL[0]) and word.candidates == tuple(range(len(TOPICS)))
    assert (topic(POOL[0]) in prompt_text) == is_taken

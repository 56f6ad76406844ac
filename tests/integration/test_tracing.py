"""What LangSmith is sent where its client is switched on, as docs/tracing.md says."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from langsmith import Client, configure

from tests.integration.command_line import pgkd
from tests.integration.conftest import sentences
from tests.integration.loopback import Answer, Request, serve_json
from tests.integration.openai_server import serve
from tests.integration.test_resume import write_samples

KEY = "sk-of-the-teacher"
INGEST = {
    "use_multipart_endpoint": False,
    "size_limit": 100,
    "size_limit_bytes": 20_000_000,
    "scale_up_nthreads_limit": 1,
    "scale_up_qsize_trigger": 1000,
}
"""How runs may be sent: many in one body of JSON."""


class LangSmith:
    """Takes what its client sends, run by run."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.flush: Callable[[], None] = lambda: None

    def runs(self) -> list[dict[str, Any]]:
        self.flush()
        return [run for body in self.bodies for run in json.loads(body)["post"]]

    def __call__(self, request: Request) -> Answer:
        if request.method == "GET":
            return Answer(200, {"batch_ingest_config": INGEST})
        body = gzip.decompress(request.body) if request.body.startswith(b"\x1f\x8b") else request.body
        self.bodies.append(body.decode())
        return Answer(202, {})


@pytest.fixture
def langsmith() -> Iterator[LangSmith]:
    """LangSmith's client switched on for the process, as its environment variables do for one that begins."""
    server = LangSmith()
    with serve_json(server) as address:
        client = Client(api_url=address, api_key="lsv2_x")
        configure(client=client, enabled=True, project_name="mine")
        server.flush = client.flush
        try:
            yield server
        finally:
            configure(client=None, enabled=None, project_name=None)
            client.cleanup()


def table(path: Path, per_class: int) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *((row.text, row.label) for row in sentences(per_class, 0))])
    return path.name


def test_calls_of_a_run_are_sent_with_their_prompts_and_no_key_and_texts_that_a_student_answers_are_not(
    langsmith: LangSmith, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    train = table(tmp_path / "train.csv", 6)
    with serve(write_samples) as server:
        done = pgkd(
            *("distill", "--train", train, "--teacher", "openai:m", "--base-url", server.base_url, "--steps", "1"),
            *("--student", tiny_student, "--set", "student.max_epochs=1", "--set", "pgkd.pgkd_batch_size=4"),
            *("--prompt", "per_class", "--set", "teacher.samples_per_request=2", "--out", "run"),
        )
    assert done.returncode == 0, done.stderr
    calls = [run for run in langsmith.runs() if run["run_type"] == "llm"]
    assert len(server.requests) == len(calls) == 2
    assert {run["session_name"] for run in calls} == {"mine"}
    metadata = sorted((run["extra"]["metadata"] for run in calls), key=lambda one: one["request_index"])
    assert [(one["kd_step"], one["request_index"], one["attempt"]) for one in metadata] == [(1, 0, 0), (1, 1, 0)]
    assert {one["ls_model_name"] for one in metadata} == {"m"}
    assert all('"total_tokens": 120' in json.dumps(run) for run in calls)
    sent = "".join(langsmith.bodies)
    assert all(json.dumps(body["messages"][-1]["content"]) in sent for body in server.requests)
    assert KEY in server.keys[0] and KEY not in sent

    langsmith.bodies.clear()
    done = pgkd("classify", "run", train)
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 24
    assert langsmith.runs() == []

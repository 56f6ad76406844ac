"""The commands and the Python of README and docs, run in their order by somebody who has the files that they name.

The LLMs, the model hub and the pretrained student of that name are servers on loopback and a tiny folder. Those of
`evals/` take hours; `test_docs.py` holds all of them against the program.
"""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest

import pgkd_agent
from pgkd_agent.runs.stored import read_run
from pgkd_agent.teacher.calls import jobs
from pgkd_agent.workbench.reviewing import Decision, decide
from tests.integration import bedrock_server, openai_server
from tests.integration.command_line import Ended, pgkd, pgkd_process, pgkd_server
from tests.integration.conftest import TOPICS, sentences
from tests.integration.loopback import Answer, serve_json
from tests.integration.test_docs import OPTIONAL, ROOT, commands
from tests.integration.test_hub import Hub

ORDER = (
    "README.md",
    "docs/install.md",
    "docs/unlabelled.md",
    "docs/data.md",
    "docs/answering.md",
    "docs/speed.md",
    "docs/runs.md",
    "docs/ui.md",
    "docs/teachers.md",
    "docs/prompts.md",
    "docs/tracing.md",
)
"""The README makes the run that the others are about."""
MORE = "--train train.csv --teacher openai:gpt-4o-mini --steps 1 --set student.max_epochs=2"
"""What `...` stands for, on a command line that names no rows."""
TINY = ["--set", "student.name=bert-base-uncased"]
"""Instead of the embedded student, each fit of which takes seconds, and each push 90 MB."""
NOT_HERE = {
    "pgkd models get": "fetches packages",
    "pgkd distill --dataset ag_news --rows 1000": "reads the dataset from the model hub",
    "pgkd eval prompts": "hours; see test_prompt_evals.py for the same on few rows",
    "pgkd compare": "hours; see test_compare.py for the same on few rows",
}
LABEL = '{"class_label": "fruit"}'
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
CURL = re.compile(r"^curl .* -d '(.*)' http://127.0.0.1:8000(/\S+)$", re.MULTILINE)


def written(call: int) -> str:
    words = [TOPICS["fruit"][call % 8], TOPICS["fruit"][(call + 3) % 8]]
    return json.dumps({"samples": [{"text": f"{words[0]} number {call} beside a {words[1]}", "label": "fruit"}]})


def openai(call: int, body: dict[str, object]) -> Answer:
    """Few tokens are for a label, more for samples."""
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    if not isinstance(limit, int) or limit > 100:
        return openai_server.completion(written(call))
    text = json.dumps(body["messages"][-1:]).rpartition("text")[2]  # at the end of the prompt
    found = next((name for name, words in TOPICS.items() if any(word in text for word in words)), "fruit")
    return openai_server.completion(json.dumps({"class_label": found}))


@pytest.fixture
def folder(tmp_path: Path, tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """With the files, servers and keys that the documents speak of."""
    for name, per_class, seed in (("train", 6, 0), ("test", 17, 2), ("new", 4, 3)):
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [("text", "label"), *((row.text, row.label) for row in sentences(per_class, seed))]
            )
    rows = [json.dumps({"text": row.text, "label": row.label}) for row in sentences(6, 0)]
    amazon = tmp_path / "downloads" / "amazon"
    amazon.mkdir(parents=True)
    for file in (amazon / "train.jsonl", amazon / "test.jsonl"):
        file.write_text("\n".join(rows[:-8] if file.name == "train.jsonl" else rows[-8:]), encoding="utf-8")
    for file in (tmp_path / "labels.json", amazon / "labels.json"):
        file.write_text(json.dumps(list(TOPICS)), encoding="utf-8")
    shutil.copytree(tiny_student, tmp_path / "bert-base-uncased")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "FIRST_WAIT", 0.01)
    with ExitStack() as stack:
        llm = stack.enter_context(openai_server.serve(openai))
        bedrock = stack.enter_context(bedrock_server.serve(lambda _call, _body: bedrock_server.converse(LABEL)))
        hub = Hub()
        hub.address = stack.enter_context(serve_json(hub))
        for key, value in {
            "OPENAI_API_KEY": "k", "OPENAI_BASE_URL": llm.base_url, "OPENAI_API_BASE": llm.base_url,
            "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock.endpoint, "AWS_REGION": bedrock_server.REGION,
            "AWS_ACCESS_KEY_ID": bedrock_server.KEY_ID, "AWS_SECRET_ACCESS_KEY": bedrock_server.SECRET,
            "HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_x",
        }.items():  # fmt: skip
            monkeypatch.setenv(key, value)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield tmp_path


def served(words: list[str]) -> Ended:
    """A server that is asked what the document's curl asks, or for its first page, and told to end."""
    [(body, path)] = CURL.findall((ROOT / "docs" / "answering.md").read_text(encoding="utf-8"))
    with pgkd_server(*words) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.readline()
            address = said.split(" at ")[1].split(";")[0]
            headers = {"Content-Type": "application/json"}
            is_page = words[0] == "ui"
            asked = httpx.get(address) if is_page else httpx.post(f"{address}{path}", content=body, headers=headers)
            process.send_signal(signal.SIGTERM)
            ended = process.wait(60) in (0, -signal.SIGTERM)
            return Ended(0 if asked.status_code == 200 and ended else 1, asked.text, said)
        finally:
            process.kill()


def run(line: str) -> Ended:
    words = shlex.split(OPTIONAL.sub(r"\1", line), comments=True)[1:]
    if "..." in words:
        place = words.index("...")
        words[place : place + 1] = shlex.split(MORE)[2 if "--dataset" in words else 0 :]
    if words[0] in ("serve", "ui"):
        return served(words)
    if words[0] in ("distill", "train") and not {"--student", "--resume"} & {*words}:
        words += TINY
    if words[0] == "push" or "--push-to-hub" in words:  # its client reads HF_ENDPOINT when it is imported
        return pgkd_process(*words)
    return pgkd(*words)


@pytest.mark.timeout(600)  # one after the other, some in processes of their own
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the exporter's
def test_the_commands_of_the_documents_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {document for document, _ in commands() if not document.startswith("e")} == {*ORDER}  # evals/, examples/
    found = [line for name in ORDER for document, line in commands() if document == name]
    todo = {line.partition(" #")[0]: line for line in found if not line.startswith(tuple(NOT_HERE))}
    assert len(todo) >= 17
    for line in todo.values():
        if "reviewed.csv" in line:
            shutil.copy(folder / "samples.csv", folder / "reviewed.csv")
        if "review.jsonl" in line:
            bank = folder / "runs" / "bank"
            decide(bank, read_run(bank).task.taxonomy, Decision(number=0, action="reject"))
        done = run(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    models = {"runs/bank/models/best", "runs/bank/models/best-onnx/model.onnx"}
    made = {*models, "runs/bank-reviewed/report.html", "runs/bank-again/report.html"}
    assert all((folder / path).exists() for path in made)
    shutil.copytree("runs/bank", "runs/demo")  # as `make demo` leaves it
    quick = partial(pgkd_agent.distill, student="bert-base-uncased", steps=1)
    monkeypatch.setattr(pgkd_agent, "distill", quick)
    blocks = [
        code
        for name in (*ORDER, "docs/students.md")
        for code in PYTHON.findall((ROOT / name).read_text(encoding="utf-8"))
    ]
    assert len(blocks) >= 3
    for code in blocks:
        exec(compile(code, "document", "exec"), {})
    assert Path("runs/library/report.html").exists() and Path("runs/traced/report.html").exists()

"""Pushing a model, against a server that speaks the model hub's protocol."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pgkd_agent.errors import ConfigError
from pgkd_agent.hub import check_hub
from pgkd_agent.student.classifier import StudentClassifier
from tests.integration.command_line import pgkd_process
from tests.integration.loopback import Answer, Request, serve_json


@dataclass
class Hub:
    """Keeps what is committed; every file is small enough to come with the commit."""

    address: str = ""
    made: list[dict[str, object]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)
    refuses: bool = False

    def __call__(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        if path == "/api/repos/create" or "/commit/" in path:
            self.tokens.add(request.headers.get("Authorization"))
        if self.refuses:
            return Answer(403, {"error": "You may not write here"}, {"X-Error-Message": "You may not write here"})
        if path == "/api/repos/create":
            self.made.append(json.loads(request.body))
            return Answer(200, {"url": f"{self.address}/me/bank", "name": "me/bank", "id": "1"})
        if "/preupload/" in path:
            wanted = [file["path"] for file in json.loads(request.body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for name in wanted]
            return Answer(200, {"files": modes})
        if "/commit/" in path:
            for line in request.body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            commit = {"commitUrl": f"{self.address}/me/bank/commit/abc", "commitOid": "abc", "pullRequestUrl": None}
            return Answer(200, {**commit, "success": True})
        return Answer(200, {"id": "me/bank", "siblings": [], "sha": "abc", "private": True})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub()
    with serve_json(hub) as hub.address:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


def test_a_trained_model_and_its_card_are_pushed_privately_and_can_be_loaded_again(
    hub: Hub, data: Path, tiny_student: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    done = pgkd_process(
        "train", "--train", data / "topics" / "train.jsonl", "--student", tiny_student, "--out", run,
        "--set", "student.learning_rate=0.01", "--set", "student.max_epochs=2", "--push-to-hub", "me/bank",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"on the model hub: {hub.address}/me/bank" in done.stderr
    assert [repo["name"] for repo in hub.made] == ["bank"]
    assert hub.made[0].get("private") is True or hub.made[0].get("visibility") == "private"
    assert hub.tokens == {"Bearer hf_secret"}
    pulled, model = tmp_path / "pulled", run / "models" / "best"
    pulled.mkdir()
    for name, content in hub.files.items():
        (pulled / name).write_bytes(content)
    assert {*hub.files} == {file.name for file in model.iterdir()} >= {"README.md", "model.safetensors"}
    texts = ["a ripe mango", "the loud cow"]
    assert StudentClassifier.load(pulled).classify(texts) == StudentClassifier.load(model).classify(texts)


def test_a_hub_that_refuses_is_quoted_and_the_command_to_try_again_named(hub: Hub, model: Path) -> None:
    hub.refuses = True
    done = pgkd_process("push", model, "me/bank", "--public")
    assert done.returncode == 5 and done.stdout == ""
    told = " ".join(done.stderr.split())
    assert "403" in told and f"Try again: pgkd push {model} me/bank --public" in told


def test_what_cannot_be_pushed_is_said_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match="no token for the model hub; log in"):
        check_hub("me/bank")
    with pytest.raises(ConfigError, match="'me/my/bank' is no name of a repository"):
        check_hub("me/my/bank")

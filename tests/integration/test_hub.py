"""Pushing a model, against a server that speaks the model hub's protocol."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.hub import check_hub, push
from pgkd_agent.reports.page import _base_model
from pgkd_agent.student.classifier import StudentClassifier
from tests.integration.command_line import Ended, pgkd_process
from tests.integration.loopback import Answer, Request, serve_json


@dataclass
class Hub:
    """Keeps what is committed; every file is small enough to come with the commit.

    Attributes:
        private: Whether the repository is; None where there is none yet.
        refusal: Of whoever wants to write: status and words.
    """

    address: str = ""
    private: bool | None = None
    refusal: tuple[int, str] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    tokens: set[str | None] = field(default_factory=set)

    def __call__(self, request: Request) -> Answer:
        path = request.path.partition("?")[0]
        if path == "/api/validate-yaml":
            card = json.loads(request.body)["content"]
            wrong = [{"message": '"base_model" must be a name on the hub'}] if "base_model: /" in card else []
            return Answer(400 if wrong else 200, {"errors": wrong, "warnings": []})
        if request.method == "GET":
            if self.private is None:
                return Answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            return Answer(200, {"id": "me/bank", "siblings": [], "sha": "abc", "private": self.private})
        self.tokens.add(request.headers.get("Authorization"))
        if self.refusal is not None:
            return Answer(self.refusal[0], {"error": self.refusal[1]})
        if path == "/api/repos/create":
            wanted = json.loads(request.body)
            if self.private is None:
                self.private = wanted.get("private") is True or wanted.get("visibility") == "private"
            return Answer(200, {"url": f"{self.address}/me/bank", "name": "me/bank", "id": "1"})
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(request.body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False, "oid": None} for name in names]
            return Answer(200, {"files": modes})
        assert "/commit/" in path, path
        for line in request.body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        commit = {"commitUrl": f"{self.address}/me/bank/commit/abc", "commitOid": "abc", "pullRequestUrl": None}
        return Answer(200, {**commit, "success": True})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub()
    with serve_json(hub) as hub.address:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield hub


def train(data: Path, student: Path, run: Path, *options: str) -> Ended:
    return pgkd_process(
        "train", "--train", data / "topics" / "train.jsonl", "--student", student, "--out", run,
        "--set", "student.learning_rate=0.01", "--set", "student.max_epochs=2", *options,
    )  # fmt: skip


def test_a_trained_model_and_its_card_are_pushed_privately_and_can_be_loaded_again(
    hub: Hub, data: Path, tiny_student: Path, tmp_path: Path
) -> None:
    done = train(data, tiny_student, tmp_path / "run", "--push-to-hub", "me/bank")
    assert done.returncode == 0, done.stderr
    assert f"on the model hub: {hub.address}/me/bank" in done.stderr
    assert hub.private is True and hub.tokens == {"Bearer hf_secret"}
    pulled, model = tmp_path / "pulled", tmp_path / "run" / "models" / "best"
    pulled.mkdir()
    for name, content in hub.files.items():
        (pulled / name).write_bytes(content)
    assert {*hub.files} == {file.name for file in model.iterdir()} >= {"README.md", "model.safetensors"}
    texts = ["a ripe mango", "the loud cow"]
    assert StudentClassifier.load(pulled).classify(texts) == StudentClassifier.load(model).classify(texts)


def test_nothing_is_trained_for_a_repository_that_everybody_sees(
    hub: Hub, data: Path, tiny_student: Path, tmp_path: Path
) -> None:
    hub.private = False
    done = train(data, tiny_student, tmp_path / "run", "--push-to-hub", "me/bank")
    assert done.returncode == 2 and "everybody sees it: push with --public" in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists() and not hub.files


@pytest.mark.parametrize(
    ("status", "words"), [(401, "Invalid token"), (403, "You may not write here"), (400, "That is no name")]
)
def test_a_hub_that_refuses_is_quoted_and_the_command_to_try_again_named(
    status: int, words: str, hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.refusal = (status, words)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(StorageError) as failed:
        push(model, "me/bank", public=True)
    assert words in str(failed.value) and str(failed.value).endswith(f"pgkd push {model} me/bank --public")


def test_a_folder_has_no_name_as_a_base_model_and_an_embedded_student_has_one(tiny_student: Path) -> None:
    assert _base_model(str(tiny_student)) == {}
    assert _base_model("minilm") == {"base_model": "sentence-transformers/all-MiniLM-L6-v2"}
    assert _base_model("bert-base-uncased") == {"base_model": "bert-base-uncased"}


@pytest.mark.usefixtures("hub")
def test_what_cannot_be_pushed_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no saved model: it has no config"):
        push(tmp_path, "me/bank")
    with pytest.raises(ConfigError, match="'me/my/bank' is no name of a repository"):
        check_hub("me/my/bank")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StorageError, match="offline mode is enabled"):
        check_hub("me/bank")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match="no token for the model hub; log in"):
        check_hub("me/bank")

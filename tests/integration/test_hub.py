"""Pushing a model and fetching one, against a server that speaks the model hub's protocol."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.runs.hub import check_hub, push
from pgkd_agent.runs.report.page import _base_model
from pgkd_agent.student.classifier import StudentClassifier
from pgkd_agent.student.fetching import HUB_SECONDS
from pgkd_agent.student.loading import load_config, resolve_source
from pgkd_agent.student.recipe import pooling_of
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
    with pytest.raises(ConfigError, match="is no model folder"):
        push(tmp_path, "me/bank")
    with pytest.raises(ConfigError, match="'me/my/bank' is no name of a repository"):
        check_hub("me/my/bank")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(StorageError, match="offline mode is enabled"):
        check_hub("me/bank")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ConfigError, match="no token for the model hub; log in"):
        check_hub("me/bank")


@pytest.fixture
def reach(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Sets the hub's address for this process, with an empty cache."""

    def set_address(address: str) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)

    return set_address


def fails_soon(reason: str) -> None:
    """One sentence that names the embedded students, and no more time than a try may take."""
    began = time.monotonic()
    words = rf"nor to be had from.*{reason}.*student minilm or mpnet \(`pgkd models get minilm`\)$"
    with pytest.raises(ConfigError, match=words):
        load_config("bert-base-uncased")
    assert time.monotonic() - began < HUB_SECONDS + 1


def test_a_hub_that_accepts_and_never_answers_is_given_up(reach: Callable[[str], None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach(f"http://127.0.0.1:{server.getsockname()[1]}")
        fails_soon("does not answer within 3 seconds")


def test_a_hub_that_refuses_is_asked_once(reach: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[object] = []
    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", lambda *args: (tries.append(args), connect(*args))[1])
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    reach(f"http://127.0.0.1:{port}")
    fails_soon("refused")
    assert len(tries) == 1


def test_a_name_that_is_never_resolved_is_given_up(
    reach: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def never(*_args: object, **_kwargs: object) -> None:
        released.wait()
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    reach("http://hub.invalid")
    fails_soon("does not answer within 3 seconds")
    released.set()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(404, b""), "does not know it"),
        (Answer(401, b"", {"X-Error-Code": "RepoNotFound"}), "does not know it"),
        (Answer(503, b""), "answers with status 503"),
    ],
)
def test_a_hub_that_has_no_such_model_or_is_out_of_order_is_asked_once(
    answer: Answer, reason: str, reach: Callable[[str], None]
) -> None:
    asked: list[Request] = []

    def hub(request: Request) -> Answer:
        asked.append(request)
        return answer

    with serve_json(hub) as address:
        reach(address)
        fails_soon(reason)
    assert [(request.method, request.path) for request in asked] == [
        ("HEAD", "/bert-base-uncased/resolve/main/config.json")
    ]


def test_offline_the_hub_is_not_asked(reach: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    reach("http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(socket.socket, "connect", lambda *_args: pytest.fail("it was asked"))
    fails_soon("not asked: HF_HUB_OFFLINE is set")


def test_a_slow_download_is_waited_for_and_then_comes_from_the_cache(
    reach: Callable[[str], None], tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgkd_agent.student.fetching.HUB_SECONDS", 0.5)

    def hub(request: Request) -> Answer:
        file = tiny_student / request.path.rpartition("/")[2]
        if "/resolve/" not in request.path or not file.is_file():
            return Answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{file.name}"', "X-Repo-Commit": "0" * 40}
        return Answer(200, file.read_bytes(), headers, seconds=1.0 if request.method == "GET" else 0.0)

    with serve_json(hub) as address:
        reach(address)
        fetched = load_config("me/tiny")
    assert fetched.hidden_size == 32
    assert load_config("me/tiny").to_dict() == fetched.to_dict()  # the server is gone


def serving(folder: Path, asked: list[str]) -> Callable[[Request], Answer]:
    """A hub whose every model is this folder."""

    def hub(request: Request) -> Answer:
        name = request.path.partition("/resolve/main/")[2]
        asked.append(name)
        if not name or not (folder / name).is_file():
            return Answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": "0" * 40})
        headers = {"ETag": f'"{name}"', "X-Repo-Commit": "0" * 40}
        return Answer(200, (folder / name).read_bytes(), headers)

    return hub


def test_an_embedded_student_that_is_not_here_comes_from_the_hub_and_says_how_it_reads(
    reach: Callable[[str], None], tiny_student: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PGKD_HOME", str(tmp_path / "empty"))
    model = tmp_path / "model"
    shutil.copytree(tiny_student, model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}), encoding="utf-8")
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}', encoding="utf-8")
    asked: list[str] = []
    with serve_json(serving(model, asked)) as address:
        reach(address)
        assert resolve_source("minilm") == "sentence-transformers/all-MiniLM-L6-v2"
        assert (load_config("minilm").hidden_size, pooling_of("minilm")) == (32, "mean")
    asked.clear()
    assert (load_config("minilm").hidden_size, pooling_of("minilm")) == (32, "mean")  # from the cache
    assert asked == []


def test_an_encoder_of_the_hub_that_does_not_say_how_it_reads_is_asked_once(
    reach: Callable[[str], None], tiny_student: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_student, model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}), encoding="utf-8")
    asked: list[str] = []
    with serve_json(serving(model, asked)) as address:
        reach(address)
        assert pooling_of("me/encoder") is None
        assert "1_Pooling/config.json" in asked
        asked.clear()
        assert pooling_of("me/encoder") is None
        assert "1_Pooling/config.json" not in asked

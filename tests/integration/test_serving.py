"""`pgkd serve` over real sockets: a trained student, its limits, its metrics and its page."""

from __future__ import annotations

import asyncio
import gzip
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from pgkd_agent.answering.serving.app import create_app
from pgkd_agent.answering.serving.limits import Limits
from pgkd_agent.answering.serving.messages import ClassifyRequest
from pgkd_agent.cli.listening import LOOPBACK, listen
from pgkd_agent.errors import ConfigError
from pgkd_agent.student.classifier import Prediction, StudentClassifier
from pgkd_agent.types import Label
from tests.integration.chromium import dumped
from tests.integration.command_line import pgkd, pgkd_server
from tests.integration.conftest import TOPICS, sentences

TAXONOMY = tuple(Label(name) for name in TOPICS)
TEXTS = [row.text for row in sentences(3, 2)]


@contextmanager
def serving(classifier: Any, limits: Limits | None = None, **options: Any) -> Iterator[httpx.Client]:
    server = uvicorn.Server(uvicorn.Config(create_app(classifier, limits, **options), log_level="warning"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


def metrics_of(client: httpx.Client) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_one_text_and_many_get_the_labels_of_the_classifier(classifier: StudentClassifier) -> None:
    expected = classifier.classify(TEXTS)
    with serving(classifier) as client:
        many = client.post("/classify", json={"texts": TEXTS, "top": 9}).json()["predictions"]
        one = client.post("/classify", json={"text": TEXTS[0]}).json()["predictions"]
        none = client.post("/classify", json={"texts": []}).json()["predictions"]
        assert client.get("/labels").json() == {"labels": list(TOPICS)}
        assert client.get("/health").json()["status"] == "ok"
    assert [row["label"] for row in many] == [row.label for row in expected]
    for row, prediction in zip(many, expected, strict=True):
        assert row["confidence"] == pytest.approx(prediction.confidence, abs=1e-5)
        found = {entry["label"]: entry["probability"] for entry in row["top"]}
        assert found == pytest.approx(prediction.probabilities, abs=1e-5)
        assert list(found.values()) == sorted(found.values(), reverse=True)
    assert one[0]["label"] == expected[0].label == one[0]["top"][0]["label"] and len(one[0]["top"]) == 1
    assert none == []


def test_a_text_that_it_is_not_sure_of_gets_no_label(classifier: StudentClassifier) -> None:
    with serving(classifier, min_confidence=1.0) as client:
        row = client.post("/classify", json={"text": TEXTS[0]}).json()["predictions"][0]
        values = metrics_of(client)
    assert row["label"] is None and row["top"]
    assert values["pgkd_abstained_total",] == 1 and sum(values["pgkd_labels_total", name] for name in TOPICS) == 0


LIMITS = Limits(texts=3, chars=50, body_bytes=2000)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"texts": ["a"] * 4}, 422, "4 texts; at most 3"),
        ({"texts": ["a", "b" * 51]}, 422, "texts.1 has 51 characters; at most 50"),
        ({"text": "b" * 51}, 422, "texts.0 has 51 characters"),
        ({"text": "b" * 2000}, 413, "more than 2,000 bytes"),
        ({}, 422, "either 'text' or 'texts'"),
        ({"text": "a", "texts": ["a"]}, 422, "either 'text' or 'texts'"),
        ({"texts": [1]}, 422, "texts.0"),
        ({"text": "a", "top": 0}, 422, "top"),
        ({"text": "a", "topp": 1}, 422, "there is no 'topp'; give text, texts, top"),
        ("not an object", 422, "body"),
        ({"texts": ["a", None]}, 422, "texts.1: Input should be a valid string"),
        ({"text": None}, 422, "text: Input should be a valid string"),
    ],
)
def test_what_is_not_taken_is_said_in_a_sentence(
    classifier: StudentClassifier, body: Any, status: int, words: str
) -> None:
    with serving(classifier, LIMITS) as client:
        answer = client.post("/classify", json=body)
        assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
        assert client.post("/classify", json={"text": "ok"}).status_code == 200


@pytest.mark.parametrize("content", [b"{", b'{"text": "\xe9"}', b"[" * 100_000, b"", b'{"top": ' + b"1" * 5000])
def test_a_body_that_is_no_json_or_no_text_is_refused(classifier: StudentClassifier, content: bytes) -> None:
    with serving(classifier) as client:
        answer = client.post("/classify", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422 and answer.json()["detail"]


def test_half_a_surrogate_pair_is_repaired_as_everywhere(classifier: StudentClassifier) -> None:
    bodies = (b'{"text": "a lemon \\ud800"}', '{"texts": ["a lemon \N{REPLACEMENT CHARACTER}"]}'.encode())
    with serving(classifier) as client:
        answers = [
            client.post("/classify", content=body, headers={"content-type": "application/json"}) for body in bodies
        ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


def test_a_body_that_is_not_said_to_be_json_is_refused_with_what_to_say(classifier: StudentClassifier) -> None:
    with serving(classifier) as client:
        answer = client.post("/classify", content=b'{"text": "a"}', headers={"content-type": "text/plain"})
    assert answer.status_code == 415 and "Content-Type: application/json" in answer.json()["detail"]


def test_a_packed_body_is_refused_by_the_name_of_its_encoding(classifier: StudentClassifier) -> None:
    body = gzip.compress(b'{"text": "a"}')
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    with serving(classifier) as client:
        answer = client.post("/classify", content=body, headers=headers)
        plain = client.post("/classify", json={"text": "a"}, headers={"content-encoding": "identity"})
    assert answer.status_code == 415 and "Content-Encoding 'gzip' is not taken" in answer.json()["detail"]
    assert plain.status_code == 200


def test_a_body_without_a_length_is_cut_off_at_the_limit(classifier: StudentClassifier) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"text": "'
        for _ in range(2000):
            yield b"a" * 1000

    with serving(classifier, LIMITS) as client:
        answer = client.post("/classify", content=endless(), headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert client.get("/health").status_code == 200


def test_a_body_that_is_just_too_large_is_refused_too(classifier: StudentClassifier) -> None:
    with serving(classifier, LIMITS) as client:
        body = iter([b'{"text": "' + b"a" * 2500 + b'"}'])  # in one chunk, and without a length
        answer = client.post("/classify", content=body, headers={"content-type": "application/json"}, timeout=5)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:80", 200),
        ("[::1]", 200),
        ("elsewhere.example", 403),
        ("", 403),
    ],
)
def test_it_answers_to_its_names_only(classifier: StudentClassifier, host: str, status: int) -> None:
    with serving(classifier, hosts=LOOPBACK) as client:
        assert client.get("/health", headers={"Host": host}).status_code == status


def test_a_key_is_asked_for_wherever_the_model_can_be_seen(classifier: StudentClassifier) -> None:
    with serving(classifier, key="sesame") as client:
        for path in ("/labels", "/metrics"):
            assert client.get(path).status_code == 401
        for key in ("", "Bearer", "Bearer wrong", "Bearer sesame2", "sesame", "Basic sesame"):
            answer = client.post("/classify", json={"text": "a"}, headers={"Authorization": key})
            assert answer.status_code == 401 and "Bearer KEY" in answer.json()["detail"]
        for key in ("Bearer sesame", "bearer sesame"):
            assert client.post("/classify", json={"text": "a"}, headers={"Authorization": key}).status_code == 200
        assert client.get("/health").status_code == client.get("/").status_code == 200


class Slow:
    """The classifier, each of its calls held until it is let go."""

    def __init__(self, classifier: StudentClassifier) -> None:
        self._classifier = classifier
        self.labels = classifier.labels
        self.calls: list[int] = []
        self.go = threading.Event()

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        self.calls.append(len(texts))
        assert self.go.wait(20)
        return self._classifier.classify(texts)


def test_under_load_requests_share_a_call_and_too_many_are_told_to_come_again(classifier: StudentClassifier) -> None:
    slow = Slow(classifier)

    async def load(address: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=address, timeout=30) as client:
            first = asyncio.create_task(client.post("/classify", json={"text": TEXTS[0]}))
            while not slow.calls:
                await asyncio.sleep(0.005)
            others = [asyncio.create_task(client.post("/classify", json={"text": text})) for text in TEXTS[:10]]
            while sum(one.done() for one in others) < 2:  # those that came last
                await asyncio.sleep(0.005)
            slow.go.set()
            await first
            return await asyncio.gather(*others)

    with serving(slow, Limits(waiting=8)) as client:
        answers = asyncio.run(load(str(client.base_url)))
    assert sorted(answer.status_code for answer in answers) == [200] * 8 + [429] * 2
    assert slow.calls == [1, 8]
    for answer, expected in zip(answers, classifier.classify(TEXTS[:10]), strict=True):
        if answer.status_code == 200:
            assert answer.json()["predictions"][0]["label"] == expected.label
        else:
            assert answer.headers["retry-after"] == "1" and "8 texts are waiting" in answer.json()["detail"]


def test_metrics_say_what_was_asked_and_answered(classifier: StudentClassifier) -> None:
    with serving(classifier) as client:
        client.post("/classify", json={"texts": TEXTS})
        client.post("/classify", json={})
        values = metrics_of(client)
    assert values["pgkd_requests_total", "200"] == values["pgkd_requests_total", "422"] == 1
    by_label = {name: values["pgkd_labels_total", name] for name in TOPICS}
    assert sum(by_label.values()) == values["pgkd_confidence_count",] == values["pgkd_batch_texts_sum",] == len(TEXTS)
    assert values["pgkd_waiting_texts",] == 0 and values["pgkd_request_seconds_count",] == 2


class Planted:
    """Gives every text a label with HTML in it."""

    labels = ("<img src=x onerror=\"document.title='run'\">", "b")

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        return [Prediction(self.labels[0], 0.75, dict(zip(self.labels, (0.75, 0.25), strict=True))) for _ in texts]


def test_the_page_shows_labels_as_text(tmp_path: Path) -> None:
    with serving(Planted()) as client:
        policy = client.get("/").headers["content-security-policy"]
        page = dumped(f"{client.base_url}?text=%3Cscript%3Ehello", tmp_path / "profile")
    assert "default-src 'none'" in policy
    assert "<title>Classify a text</title>" in page  # nothing planted ran
    assert "<td>&lt;img src=x onerror=" in page and '<td class="number">0.750</td>' in page
    assert page.index(">0.750<") < page.index(">0.250<")


def test_the_api_describes_itself_and_its_refusals(classifier: StudentClassifier) -> None:
    with serving(classifier) as client:
        described = client.get("/openapi.json").json()["paths"]
        assert client.get("/docs").status_code == 404  # it would load scripts from elsewhere
    assert set(described["/classify"]["post"]["responses"]) == {
        "200",
        "401",
        "403",
        "413",
        "415",
        "422",
        "429",
        "500",
        "503",
    }


def test_told_to_end_it_answers_what_is_under_way(classifier: StudentClassifier) -> None:
    slow = Slow(classifier)
    answers: list[int] = []
    with serving(slow) as client:
        address = f"{client.base_url}/classify"
        busy = threading.Thread(target=lambda: answers.append(httpx.post(address, json={"text": TEXTS[0]}).status_code))
        busy.start()
        while not slow.calls:
            time.sleep(0.005)
        threading.Timer(0.3, slow.go.set).start()  # by then it has been told
    busy.join()
    assert answers == [200]


def test_a_process_that_is_told_to_end_does_so_without_a_traceback(model: Path) -> None:
    process = pgkd_server("serve", model, "--max-connections", "1")
    assert process.stderr
    address = process.stderr.readline().split(" at ")[1].split(";")[0]
    assert httpx.post(f"{address}/classify", json={"text": "apple"}).status_code == 200
    assert httpx.get(f"{address}/health", headers={"Host": "elsewhere.example"}).status_code == 403
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) in (0, -signal.SIGTERM)
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_client_that_hangs_up_while_it_waits_costs_nothing(classifier: StudentClassifier) -> None:
    slow = Slow(classifier)
    with serving(slow) as client:
        first = threading.Thread(target=lambda: client.post("/classify", json={"text": TEXTS[0]}))
        first.start()
        while not slow.calls:
            time.sleep(0.005)
        with pytest.raises(httpx.ReadTimeout), httpx.Client(base_url=client.base_url, timeout=0.3) as impatient:
            impatient.post("/classify", json={"texts": TEXTS[:5]})
        time.sleep(0.2)
        slow.go.set()
        first.join()
        assert client.post("/classify", json={"texts": TEXTS[:2]}).status_code == 200
        assert metrics_of(client)["pgkd_requests_total", "499"] == 1
    assert slow.calls == [1, 2]


def test_a_large_bad_request_is_answered_at_once_and_briefly(classifier: StudentClassifier) -> None:
    with serving(classifier) as client:
        many = {f"key{number}": 1 for number in range(50_000)}
        for body in ({"texts": [1] * 300_000}, many, {"": 1, **many}):
            answer = client.post("/classify", json=body)
            assert answer.status_code == 422 and answer.json()["detail"].count(";") <= 1
            with pytest.raises(ValidationError) as refused:
                ClassifyRequest.model_validate(body)
            assert refused.value.error_count() == 1  # one for each would take seconds and a gigabyte


class Failing:
    labels = ("a", "b")

    def classify(self, texts: Sequence[str]) -> list[Prediction]:
        raise ValueError("planted")


def test_a_failure_is_said_in_a_sentence_and_the_next_request_is_heard() -> None:
    with serving(Failing()) as client:
        for _ in range(2):
            answer = client.post("/classify", json={"text": "a"})
            assert (answer.status_code, answer.json()["detail"][:21]) == (500, "the classifier failed")
        assert client.get("/health").status_code == 200
        assert metrics_of(client)["pgkd_requests_total", "500"] == 2


def test_answers_are_not_held_back_for_acknowledgements() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("key", ["", " sesame", "sesame\n", "sésame"])
def test_a_key_that_no_header_can_hold_is_refused_at_once(classifier: StudentClassifier, key: str) -> None:
    with pytest.raises(ConfigError, match="printable ASCII"):
        create_app(classifier, key=key)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--host", "0.0.0.0"], "PGKD_API_KEY"),
        (["--port", "TAKEN"], "cannot listen on 127.0.0.1"),
    ],
)
def test_refuses_tolisten(model: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGKD_API_KEY", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = pgkd("serve", model, *(port if option == "TAKEN" else option for option in options))
    assert done.returncode == 2 and message in " ".join(done.stderr.split())

"""The embedded teacher for real: llama.cpp in a process of its own, SmolLM2-135M."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from pgkd_agent.config import BudgetSettings, PGKDConfig, TeacherSettings
from pgkd_agent.errors import BudgetExceededError, ConfigError, TeacherUnavailableError
from pgkd_agent.teacher.annotation import Doubt
from pgkd_agent.teacher.calls.budget import Budget
from pgkd_agent.teacher.calls.models import open_models
from pgkd_agent.teacher.calls.prices import load_prices
from pgkd_agent.teacher.calls.question import CallId
from pgkd_agent.teacher.providers.factory import build_teacher
from pgkd_agent.teacher.providers.local import serve
from pgkd_agent.teacher.standalone import open_annotator
from pgkd_agent.types import Example, Label

LABELS = ["Sci/Tech", "it's", 'a "quoted" one', "été 🏀"]
ITEM = {
    "type": "object",
    "properties": {"text": {"type": "string", "maxLength": 40}, "label": {"enum": LABELS}},
    "required": ["text", "label"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {"samples": {"type": "array", "minItems": 2, "maxItems": 2, "items": ITEM}},
    "required": ["samples"],
    "additionalProperties": False,
}
ENDLESS = {"type": "array", "minItems": 1000, "maxItems": 1000, "items": {"type": "integer"}}


@pytest.fixture(scope="module")
def server(smollm2: Path) -> Iterator[str]:
    with serve(smollm2, context_tokens=512) as running:
        yield running


def ask(server: str, content: str = "Write two headlines.", **fields: Any) -> httpx.Response:
    body = {"messages": [{"role": "user", "content": content}], "seed": 1, "temperature": 1.0, **fields}
    with httpx.Client(trust_env=False, timeout=120) as client:
        return client.post(f"{server}/chat/completions", json=body)


def text_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["message"]["content"])


pytestmark = pytest.mark.local_model


def test_reply_follows_the_schema(server: str) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "samples", "strict": True, "schema": SCHEMA}}
    reply = json.loads(text_of(ask(server, max_completion_tokens=300, response_format=wanted)))
    assert len(reply["samples"]) == 2
    assert all(sample["label"] in LABELS for sample in reply["samples"])


def test_same_seed_same_reply_also_in_another_server(server: str, smollm2: Path) -> None:
    reply = text_of(ask(server, max_tokens=6))  # with more threads than free cores a token takes seconds
    assert text_of(ask(server, "Something in between.", max_tokens=5)) != reply
    assert text_of(ask(server, max_tokens=6)) == reply
    assert text_of(ask(server, max_tokens=6, seed=2)) != reply
    with serve(smollm2, context_tokens=512, threads=2) as second:
        assert second != server
        assert text_of(ask(second, max_tokens=6)) == reply
    assert text_of(ask(server, max_tokens=6)) == reply  # closing one leaves the other


def test_slots_answer_at_once_each_with_the_whole_context(smollm2: Path) -> None:
    long = "word " * 160  # with 32 tokens of reply it fills most of one context of 256
    with serve(smollm2, context_tokens=256, slots=2) as server:
        replies: list[httpx.Response] = []
        asking = [
            threading.Thread(
                target=lambda: replies.append(ask(server, long, max_completion_tokens=32, ignore_eos=True))
            )
            for _ in range(2)
        ]
        for thread in asking:
            thread.start()
        most = 0
        while any(thread.is_alive() for thread in asking):
            with httpx.Client(trust_env=False, timeout=10) as client:
                slots = client.get(server.removesuffix("/v1") + "/slots").json()
            most = max(most, sum(slot["is_processing"] for slot in slots))
            time.sleep(0.05)
    assert most == 2 and [slot["n_ctx"] for slot in slots] == [256, 256]
    assert [reply.json()["usage"]["completion_tokens"] for reply in replies] == [32, 32]


def test_length_limit_and_no_path_in_the_reply(server: str, smollm2: Path) -> None:
    reply = ask(server, max_completion_tokens=7).json()
    assert reply["usage"]["completion_tokens"] == 7
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["model"] == smollm2.stem


def test_prompt_beyond_the_context_is_refused(server: str) -> None:
    response = ask(server, "word " * 1000)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "exceed_context_size_error"


def test_leaving_frees_the_port_and_closing_may_be_repeated(
    smollm2: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(smollm2, context_tokens=256) as url:
        address = urlsplit(url)
        assert address.hostname == "127.0.0.1" and address.port is not None
    with socket.socket() as probe:
        assert probe.connect_ex((address.hostname, address.port)) != 0
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")  # put back after the test
    chat = build_teacher(TeacherSettings(spec=f"local:{smollm2}", context_tokens=512), 16)
    chat.close()
    chat.close()
    assert capfd.readouterr() == ("", "")


def test_leaving_ends_at_once_and_who_waits_is_hung_up_on(smollm2: Path) -> None:
    failures: list[Exception] = []

    def wait(server: str) -> None:
        try:
            ask(server, max_tokens=4000, ignore_eos=True)
        except httpx.HTTPError as error:
            failures.append(error)

    with serve(smollm2) as server:
        waiting = threading.Thread(target=wait, args=(server,), daemon=True)
        waiting.start()
        with httpx.Client(trust_env=False) as client:
            deadline = time.monotonic() + 30
            while not client.get(server.replace("/v1", "/slots")).json()[0]["is_processing"]:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        started = time.monotonic()
    waiting.join(5)
    assert time.monotonic() - started < 5 and len(failures) == 1  # 4000 tokens would take minutes


BUSY = """
import os, sys, threading, urllib.request
from pathlib import Path
from pgkd_agent.teacher.providers.local import serve
from pgkd_agent.teacher.standalone import open_annotator
from pgkd_agent.types import Example, Label
with serve(Path(sys.argv[1])) as server:
    asked = urllib.request.Request(server + "/completions", b'{"prompt": "x", "n_predict": 4000, "ignore_eos": true}')
    threading.Thread(target=urllib.request.urlopen, args=(asked,)).start()
    print(server, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_process_that_started_it(end: signal.Signals, smollm2: Path) -> None:
    command = [sys.executable, "-c", BUSY, str(smollm2)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = urlsplit(process.stdout.readline())
        process.send_signal(end)
    deadline = time.monotonic() + 10
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((address.hostname, address.port)) != 0:
                break
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_context_that_llama_cpp_aborts_at_is_an_error_of_the_settings(smollm2: Path) -> None:
    with pytest.raises(ConfigError, match=r"could not load .* 1 token of context \(\S+"), serve(smollm2, 1):
        pass


def test_closing_after_the_client_hung_up(smollm2: Path) -> None:
    with serve(smollm2) as server, httpx.Client(trust_env=False, timeout=1) as client:
        body = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4000, "ignore_eos": True}
        with pytest.raises(httpx.ReadTimeout):
            client.post(f"{server}/chat/completions", json=body)
        started = time.monotonic()
    assert time.monotonic() - started < 60  # 4000 tokens would take minutes


def test_a_file_cut_short(smollm2: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    with smollm2.open("rb") as whole:
        cut.write_bytes(whole.read(1 << 22))
    with pytest.raises(ConfigError, match=r"could not load .*cut\.gguf"), serve(cut):
        pass


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file or directory"), (b"", "not a GGUF file"), (b"hello, not a model", "begins with b'hell'")],
)
def test_not_a_model(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message), serve(path):
        pass


def test_a_call_that_takes_too_long_is_not_made_worse_by_another(smollm2: Path) -> None:
    settings = TeacherSettings(spec=f"local:{smollm2}", timeout=0.2)
    budget = Budget(BudgetSettings(), load_prices())
    with open_models(None, [(settings, 2000)], 0, budget) as (model,):
        with pytest.raises(TeacherUnavailableError, match=r"this machine is slow.*raise teacher\.timeout") as caught:
            model.invoke("Write a long story.")
        assert budget.spent.calls == 1
    assert "network" not in str(caught.value) and "connection" not in str(caught.value)


def test_when_the_run_s_time_is_over_its_server_is_not_waited_for(smollm2: Path) -> None:
    settings = TeacherSettings(spec=f"local:{smollm2}", context_tokens=8192)
    started = time.monotonic()
    with open_models(None, [(settings, 8000)], 0, Budget(BudgetSettings(max_minutes=0.05), load_prices())) as (model,):
        words = "max_minutes leaves no time to try again"
        with pytest.raises(BudgetExceededError, match=words):
            model.bind(answer_schema=ENDLESS).invoke("Write.")
    assert time.monotonic() - started < 25


def test_every_candidate_of_a_text_to_label_has_a_probability(smollm2: Path) -> None:
    taxonomy = [Label(name) for name in LABELS]
    config = PGKDConfig().changed({"teacher.spec": f"local:{smollm2}", "teacher.context_tokens": 512})
    rows = tuple(Example(f"about {name}", name) for name in LABELS)
    budget = Budget(BudgetSettings(), load_prices(None))
    with open_annotator(taxonomy, "", config, budget, Path(":memory:")) as annotator:
        doubts = [Doubt(CallId(0, number), f"text {number}", (0, 1, 2, 3), rows) for number in range(2)]
        answers = [answer for _place, answer in annotator.label(doubts)]
    named = [answer.word for answer in answers if answer.word]
    assert len(answers) == 2 and named, "even if it is always the same one"
    for word in named:
        assert len(word.chances) == 4 and 0 < sum(word.chances) < 1.001


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_requests(smollm2: Path) -> None:
    def resident() -> int:
        """MiB of what is not the model's file, of the server's process."""
        (status,) = (
            text
            for child in Path("/proc/self/task").glob("*/children")
            for pid in child.read_text().split()
            if "llama_process.py" in Path(f"/proc/{pid}/cmdline").read_text()
            for text in [Path(f"/proc/{pid}/status").read_text()]
            if pid not in others
        )
        return int(re.findall(r"RssAnon:\s+(\d+) kB", status)[0]) // 1024

    others = {pid for child in Path("/proc/self/task").glob("*/children") for pid in child.read_text().split()}
    with serve(smollm2, context_tokens=1024) as server:
        prompts = [f"{number} " + "words that say nothing at all " * 40 for number in range(8)]
        for prompt in prompts[:3]:
            ask(server, prompt, max_tokens=1)
        before = resident()
        for prompt in prompts[3:]:
            assert ask(server, prompt, max_tokens=1).status_code == 200
        assert resident() - before < 12

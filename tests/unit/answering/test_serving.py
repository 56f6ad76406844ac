"""The batcher of `pgkd serve`: who is answered with whom, and what happens under load."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from pgkd_agent.answering.serving.batching import Batcher, ClassifierError, OverloadedError, StoppedError
from pgkd_agent.student.classifier import Prediction


class Panic(BaseException):
    """As libraries in Rust raise it."""


class Classifier:
    """Says of each text itself; the first call waits until it is let go."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.go = threading.Event()

    def __call__(self, texts: Sequence[str]) -> list[Prediction]:
        self.calls.append(list(texts))
        if len(self.calls) == 1:
            assert self.go.wait(10)
        if "poison" in texts:
            raise Panic("poison")
        return [Prediction(text, 1.0, {text: 1.0}) for text in texts]


async def under_load(
    classifier: Classifier, requests: Sequence[Sequence[str]], max_batch: int = 4, max_waiting: int = 100
) -> list[list[str] | BaseException]:
    """Labels for each request, all of which wait while a first one is classified."""
    batcher = Batcher(classifier, max_batch, max_waiting)
    batcher.start()
    first = asyncio.create_task(batcher.classify(["first"]))
    while not classifier.calls:
        await asyncio.sleep(0.001)
    waiting = [asyncio.create_task(batcher.classify(texts)) for texts in requests]
    await asyncio.sleep(0.01)
    assert batcher.waiting <= max_waiting
    classifier.go.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    await first
    assert batcher.waiting == 0
    await batcher.stop()
    return [one if isinstance(one, BaseException) else [p.label for p in one] for one in results]


def test_what_waits_is_classified_together_and_each_gets_its_own() -> None:
    classifier = Classifier()
    requests = [["a", "b"], ["c"], ["d", "e"], ["f", "g", "h", "i", "j"], ["k"]]
    assert asyncio.run(under_load(classifier, requests)) == requests
    assert classifier.calls == [["first"], ["a", "b", "c"], ["d", "e"], ["f", "g", "h", "i", "j"], ["k"]]


def test_a_batch_of_1_leaves_each_request_alone() -> None:
    classifier = Classifier()
    asyncio.run(under_load(classifier, [["a"], ["b"], ["c", "d"]], max_batch=1))
    assert classifier.calls == [["first"], ["a"], ["b"], ["c", "d"]]


def test_a_request_that_fails_does_not_spoil_the_others() -> None:
    found = asyncio.run(under_load(Classifier(), [["a"], ["poison"], ["b", "c"]]))
    assert found[0] == ["a"] and found[2] == ["b", "c"]
    assert isinstance(found[1], ClassifierError) and "Panic: poison" in str(found[1])


def test_too_many_waiting_texts_are_refused_and_the_others_answered() -> None:
    found = asyncio.run(under_load(Classifier(), [["a", "b"], ["c", "d", "e"], ["f"]], max_waiting=3))
    assert found[0] == ["a", "b"] and found[2] == ["f"]
    assert isinstance(found[1], OverloadedError)


def test_a_client_that_has_gone_costs_nothing() -> None:
    async def go() -> list[list[str]]:
        classifier = Classifier()
        batcher = Batcher(classifier, 8, 100)
        batcher.start()
        first = asyncio.create_task(batcher.classify(["first"]))
        while not classifier.calls:
            await asyncio.sleep(0.001)
        gone, stays = (asyncio.create_task(batcher.classify([text])) for text in ("gone", "stays"))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.sleep(0.01)
        classifier.go.set()
        await asyncio.gather(first, stays)
        await batcher.stop()
        return classifier.calls

    assert asyncio.run(go())[1:] == [["stays"]]


def test_a_request_without_texts_needs_no_call() -> None:
    async def go() -> list[Prediction]:
        return await Batcher(Classifier(), 4, 4).classify([])

    assert asyncio.run(go()) == []


def test_stop_answers_what_is_under_way_and_leaves_nobody_waiting() -> None:
    async def go() -> None:
        classifier = Classifier()
        batcher = Batcher(classifier, 1, 10)
        batcher.start()
        tasks = [asyncio.create_task(batcher.classify([text])) for text in ("a", "b", "c")]
        while not classifier.calls:
            await asyncio.sleep(0.001)
        assert batcher.is_alive
        stopping = asyncio.create_task(batcher.stop())
        await asyncio.sleep(0.01)
        classifier.go.set()
        await stopping
        assert [one.label for one in await tasks[0]] == ["a"]
        assert [type(one) for one in await asyncio.gather(*tasks[1:], return_exceptions=True)] == [StoppedError] * 2
        assert not batcher.is_alive
        with pytest.raises(StoppedError):
            await batcher.classify(["d"])

    asyncio.run(go())


def test_stop_wakes_a_batcher_that_has_nothing_to_do() -> None:
    async def go() -> None:
        batcher = Batcher(Classifier(), 1, 10)
        batcher.start()
        await asyncio.sleep(0.01)
        await asyncio.wait_for(batcher.stop(), 5)

    asyncio.run(go())

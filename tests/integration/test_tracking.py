"""Experiment trackers, each with its own package reading back what was sent."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest

from pgkd_agent import distill
from pgkd_agent.config import PGKDConfig
from pgkd_agent.errors import ConfigError
from pgkd_agent.runs.observer import Observer, Observers
from pgkd_agent.runs.trackers import TRACKERS, Tracker, tracked
from pgkd_agent.testing import ScriptedChatModel
from tests.integration.conftest import sentences

TRAIN, TEST = sentences(10, 0), sentences(5, 2)
REPLY = json.dumps({"samples": [{"text": "fresh mango and lemon from the market", "label": "fruit"}]})


def run(config: PGKDConfig, spec: str) -> list[float]:
    """Validation losses of a run that is tracked."""
    replies = [REPLY, REPLY.replace("fresh mango and lemon", "two plums or a ripe peach")]
    with ScriptedChatModel(replies) as teacher, tracked(spec, "my-run", config) as observer:
        result = distill(TRAIN, test=TEST, teacher=teacher, config=config, observer=observer)
    return [record.validation.loss for record in result.training.steps]


@pytest.fixture
def quick(config: PGKDConfig) -> PGKDConfig:
    pgkd = config.pgkd.model_copy(update={"pgkd_batch_size": 1})
    student = config.student.model_copy(update={"max_epochs": 2})
    return config.model_copy(update={"pgkd": pgkd, "student": student})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_every_step_and_the_outcome(quick: PGKDConfig, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses = run(quick, f"tensorboard:{tmp_path / 'boards'}")
    found = EventAccumulator(str(tmp_path / "boards" / "my-run")).Reload()
    scalars = found.Scalars("validation/loss")
    assert [event.step for event in scalars] == [0, 1, 2]
    assert [event.value for event in scalars] == pytest.approx(losses)
    assert {"test/plain/accuracy", "test/best/macro_f1", "best_step"} <= set(found.Tags()["scalars"])
    assert [event.value for event in found.Scalars("samples/accepted")] == [0, 1, 1]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_shows_every_step_and_how_the_run_ended(
    quick: PGKDConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # else it wants a database or a server
    place = f"file:{tmp_path / 'mlruns'}"
    losses = run(quick, f"mlflow:{place}")
    with pytest.raises(RuntimeError), tracked(f"mlflow:{place}", "broken", quick):
        raise RuntimeError
    client = mlflow.MlflowClient(tracking_uri=place)
    experiment = client.get_experiment_by_name("pgkd_agent")
    runs = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id])}
    assert (runs["my-run"].info.status, runs["broken"].info.status) == ("FINISHED", "FAILED")
    assert runs["my-run"].data.params["student.max_epochs"] == "2"
    history = client.get_metric_history(runs["my-run"].info.run_id, "validation/loss")
    assert [point.value for point in sorted(history, key=lambda point: point.step)] == pytest.approx(losses)


@pytest.mark.filterwarnings("ignore")
def test_weights_and_biases_keeps_a_run_offline(
    quick: PGKDConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    run(quick, "wandb:project")
    assert list(tmp_path.rglob("*.wandb"))


class Broken(Tracker):
    def log(self, figures: Mapping[str, float], step: int) -> None:
        raise OSError("the server is gone")

    def close(self, is_done: bool) -> None:
        raise AssertionError("asked again")


def test_a_tracker_that_fails_is_said_once_and_ends_no_run(
    quick: PGKDConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(TRACKERS, "mlflow", ("json", lambda place, name, settings: Broken()))
    with caplog.at_level(logging.WARNING):
        assert len(run(quick, "mlflow")) == 3
    assert [record.message for record in caplog.records if "mlflow" in record.message] == [
        "mlflow takes no more figures of this run: OSError: the server is gone"
    ]


@pytest.mark.parametrize(
    ("spec", "package", "message"),
    [
        ("paper", None, "none of tensorboard, mlflow, wandb"),
        ("mlflow", "no_such_package", "pgkd-agent\\[mlflow\\]"),
    ],
)
def test_what_cannot_be_opened_is_said_before_anything_is_trained(
    quick: PGKDConfig, spec: str, package: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package:
        monkeypatch.setitem(TRACKERS, spec, (package, TRACKERS[spec][1]))
    with pytest.raises(ConfigError, match=message), tracked(spec, "run", quick):
        pass


def test_several_observers_are_all_told_everything() -> None:
    told: list[tuple[int, str]] = []

    def observer(number: int) -> Observer:
        class Notes(Observer):
            pass

        for name in hooks:
            setattr(Notes, name, lambda self, *arguments, name=name: told.append((number, name)))
        return Notes()

    hooks = [name for name in vars(Observer) if name.startswith("on_")]
    both = Observers([observer(1), observer(2)])
    for name in hooks:
        getattr(both, name)(*[0] * (getattr(Observer, name).__code__.co_argcount - 1))
    assert told == [(number, name) for name in hooks for number in (1, 2)]

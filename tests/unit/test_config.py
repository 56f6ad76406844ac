from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pgkd_agent.config import PGKDConfig, build_config, to_yaml
from pgkd_agent.errors import ConfigError


def test_precedence(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("student: {learning_rate: 3e-5}", encoding="utf-8")

    def rate(**sources: object) -> float | None:
        return build_config(**sources).student.learning_rate  # type: ignore[arg-type]

    assert rate() is None
    assert rate(recipe="paper") == 2e-5
    assert rate(recipe="paper", file=file) == 3e-5
    recipes = {"recipe": "paper"}
    assert rate(layers=[recipes]) == rate(layers=[recipes], recipe="paper") == 2e-5
    assert rate(layers=[recipes], recipe="default") is None
    assert rate(file=file, assignments=["student.learning_rate=4e-5"]) == 4e-5
    assert rate(file=file, assignments=["student.learning_rate=4e-5"], flags={"student.learning_rate": 5e-5}) == 5e-5
    assert rate(file=file, flags={"student.learning_rate": None}) == 3e-5


def test_the_papers_recipe() -> None:
    config = build_config(recipe="paper")
    student, evidence, pgkd = config.student, config.evidence, config.pgkd
    assert (student.name, student.max_length) == ("bert-base-uncased", 512)
    assert (student.learning_rate, student.train_batch_size, student.max_epochs) == (2e-5, 64, 30)
    assert (student.restart, student.head_init, student.label_smoothing) == ("continue", "random", 0.0)
    assert (student.soft_labels, student.balance, config.data.rows) == (0.0, 0.0, 1000)
    assert (evidence.source, evidence.few_shot, evidence.correct) == ("history", 16, 16)
    assert (evidence.misclassified, evidence.hard_negatives) == (16, 16)
    assert (pgkd.num_kd_steps, pgkd.patience_limit, pgkd.pgkd_batch_size) == (10, 5, 32)
    assert config.teacher.prompt == "paper"


def test_on_and_off_are_no_booleans() -> None:
    for value in ("on", "off", "'off'"):
        assert build_config(assignments=[f"student.bf16={value}"]).student.bf16 == value.strip("'")


def test_the_resolved_settings_are_read_back(tmp_path: Path) -> None:
    config = build_config(assignments=["seed=7", "teacher.spec=openai:m", "student.learning_rate=1e-5"])
    (tmp_path / "c.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert build_config(file=tmp_path / "c.yaml") == config
    assert yaml.safe_load(to_yaml(PGKDConfig()))["pgkd"]["num_kd_steps"] == 10


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("student.learning_rat=1", r"unknown setting 'student.learning_rat' \(closest: 'student.learning_rate'\)"),
        ("student.learning_rate=-1", "student.learning_rate: input should be greater than 0, found -1"),
        (
            "student.warmup_share=0.1",
            r"unknown setting 'student.warmup_share' \(there are: name, learning_rate, .*bf16\)$",
        ),
        ("order=x", r"unknown setting 'order' \(there are: seed, data, student, .*pgkd\)$"),
        ("learning_rate=1", r"\(closest: 'student.learning_rate'\)$"),
        ("student.num_kd_steps=1", r"\(closest: 'pgkd.num_kd_steps'\)$"),
        ("studnet.name=minilm", r"unknown setting 'studnet' \(closest: 'student'\)$"),
        ("student=minilm", "student: input should be a section, e.g. student.name, found 'minilm'"),
        (
            "student.learning_rate=[1e-5, fast]",
            "settings: student.learning_rate.1: input should be a number, found 'fast'$",
        ),
        ("teacher.ensemble=openai:a", "teacher.ensemble: input should be a list, found 'openai:a'"),
        ("teacher.prices=3", "teacher.prices: input should be a path, found 3"),
        ("guardrails.verify=perhaps", "guardrails.verify: input should be true or false, found 'perhaps'"),
        ("pgkd.num_kd_steps=many", "pgkd.num_kd_steps: input should be a whole number, found 'many'"),
        ("teacher.mode=both", "teacher.mode"),
        ("seed", "expected key=value"),
        ("recipe=best", "unknown recipe 'best'"),
        ("student.learning_rate=[]", "student.learning_rate: "),
        ("data.task_description=2024-13-45", "the value is not readable: ValueError: month must be in"),
        ("guardrails.verify=!!bool perhaps", "the value is not readable: KeyError: 'perhaps'"),
    ],
)
def test_mistakes_are_named(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(assignments=[assignment])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "holds a list"),
        ("a: [", "cannot be read"),
        ("a: 2024-13-45", "cannot be read: ValueError: month must be in"),
        ("a: " + "[" * 3000, "cannot be read: RecursionError"),
    ],
)
def test_a_file_that_is_no_mapping(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        build_config(file=tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        build_config(file=tmp_path / "nowhere.yaml")


def test_a_changed_config_is_another_one_validated_like_the_first() -> None:
    first = PGKDConfig(seed=3)
    second = first.changed({"student.learning_rate": 1e-5, "teacher.ensemble": [{"spec": "openai:a"}]})
    assert first.student.learning_rate is None
    assert (second.seed, second.student.learning_rate, second.teacher.ensemble[0].spec) == (3, 1e-5, "openai:a")
    assert second.changed({"student": first.student}).student == first.student
    assert second.student.changed({"learning_rate": None}) == first.student


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"student.learning_rat": 1e-5}, "student.learning_rat"),
        ({"student.learning_rate": -1}, "student.learning_rate: input should be greater than 0"),
        ({"nothing.at.all": 1}, "nothing"),
    ],
)
def test_a_changed_config_names_what_is_wrong(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        PGKDConfig().changed(changes)

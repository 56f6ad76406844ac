"""The plan of a comparison, its statistics and its tables, without a student."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from sklearn.metrics import f1_score

from pgkd_agent.errors import ConfigError, StorageError
from pgkd_agent.experiments.compare import (
    ComparisonFile,
    Done,
    Grid,
    lines,
    narrowed,
    read_comparison,
    to_csv,
    to_json,
    to_markdown,
)
from pgkd_agent.experiments.compare.cells import cells, tuning_cells
from pgkd_agent.experiments.compare.plot import plot
from pgkd_agent.experiments.methods import METHODS
from pgkd_agent.metrics.intervals import METRICS, paired_difference, spread

ROOT = Path(__file__).parents[3]

PLAN = """
about: A small one.
seeds: [1, 2]
settings: {student: {name: minilm}, pgkd: {num_kd_steps: 2}}
tune: {student.learning_rate: [1e-4, 3e-4]}
datasets: {bank: {settings: {data: {rows: 100}}}, ag_news: {}}
methods:
  control: {}
  plain: {}
  pgkd: {settings: {teacher: {prompt: paper}}}
paper: {bank: {pgkd: {accuracy: 0.9}}}
"""


def written(folder: Path, text: str = PLAN) -> Path:
    (folder / "bank").mkdir(exist_ok=True)
    (folder / "bank" / "train.jsonl").touch()
    file = folder / "plan.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_cells_are_all_of_datasets_seeds_and_methods_and_a_control_comes_after_what_it_repeats(tmp_path: Path) -> None:
    plan = read_comparison(written(tmp_path))
    all_cells = cells(plan, tmp_path, {"bank": {"student": {"learning_rate": 3e-4}}})
    places = [(name, seed) for name in ("bank", "ag_news") for seed in (1, 2)]
    assert [(cell.dataset, cell.seed, cell.entry) for cell in all_cells] == [
        (*place, entry) for place in places for entry in ("plain", "pgkd", "control")
    ]
    first, second = all_cells[0].config, all_cells[1].config
    assert first.seed == 1 and first.data.rows == 100 and first.student.learning_rate == 3e-4
    assert first.data.dataset is None and all_cells[6].config.data.dataset == "ag_news"
    assert (first.teacher.prompt, second.teacher.prompt) == (None, "paper")
    assert all_cells[2].config.teacher.prompt == "paper"  # a control has the settings of what it repeats
    assert all_cells[2].of == "pgkd" and all_cells[0].of is None


def test_the_run_whose_samples_are_frozen_comes_first_and_its_settings_go_along(tmp_path: Path) -> None:
    methods = """methods:
  control: {of: frozen}
  plain: {}
  frozen: {of: pgkd}
  pgkd: {seeds: [2], settings: {teacher: {prompt: paper}}}
paper"""
    text = PLAN[: PLAN.index("methods")] + methods + PLAN[PLAN.index("paper: {bank") + 5 :]
    found = [cell for cell in cells(read_comparison(written(tmp_path, text)), tmp_path, {}) if cell.dataset == "bank"]
    assert [(cell.entry, cell.seed) for cell in found] == [
        ("pgkd", 2), ("plain", 1), ("frozen", 1), ("control", 1), ("plain", 2), ("frozen", 2), ("control", 2)
    ]  # fmt: skip
    assert {cell.entry: (cell.of, cell.of_seed, cell.config.teacher.prompt) for cell in found} == {
        "pgkd": (None, None, "paper"),
        "plain": (None, None, None),
        "frozen": ("pgkd", 2, "paper"),
        "control": ("frozen", None, "paper"),
    }
    own = [*cells(read_comparison(written(tmp_path, text.replace("seeds: [2], ", ""))), tmp_path, {})]
    assert [(cell.seed, cell.of_seed) for cell in own if (cell.dataset, cell.entry) == ("bank", "frozen")] == [
        (1, 1), (2, 2)
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="'frozen' has seeds that 'pgkd', which it repeats, has not"):
        read_comparison(
            written(
                tmp_path,
                text.replace("seeds: [2], ", "")
                .replace("{of: pgkd}", "{seeds: [3]}", 1)
                .replace("  control: {of: frozen}\n", ""),
            )
        )


def test_what_takes_tokens_and_is_taken_from_stands_between(tmp_path: Path) -> None:
    methods = "methods: {frozen: {of: other}, other: {method: pgkd, tokens_of: pgkd}, plain: {}, pgkd: {}}"
    plan = read_comparison(written(tmp_path, PLAN[: PLAN.index("methods")] + methods))
    found = [(cell.seed, cell.entry) for cell in cells(narrowed(plan, ["bank"]), tmp_path, {})]
    assert found == [(seed, entry) for seed in (1, 2) for entry in ("plain", "pgkd", "other", "frozen")]


def test_seeds_of_ones_own_are_narrowed_but_for_the_run_that_others_take_from(tmp_path: Path) -> None:
    methods = "methods: {plain: {}, pgkd: {seeds: [1]}, frozen: {}, control: {of: frozen}, eda: {seeds: [1]}}"
    plan = read_comparison(written(tmp_path, PLAN[: PLAN.index("methods")] + methods))
    part = narrowed(plan, ["bank"], seeds=[2])
    assert [(cell.entry, cell.seed) for cell in cells(part, tmp_path, {})] == [
        ("pgkd", 1), ("plain", 2), ("frozen", 2), ("control", 2)
    ]  # fmt: skip
    wrong = methods.replace("control: {of: frozen}", "control: {of: pgkd}")
    with pytest.raises(ConfigError, match="'control' has seeds that 'pgkd', which it repeats, has not"):
        read_comparison(written(tmp_path, PLAN[: PLAN.index("methods")] + wrong))


def test_values_to_choose_from_become_cells_of_the_plain_student(tmp_path: Path) -> None:
    plan = read_comparison(written(tmp_path))
    chosen = list(tuning_cells(plan, "bank", tmp_path))
    assert [settings for settings, _ in chosen] == [{"student": {"learning_rate": rate}} for rate in (1e-4, 3e-4)]
    assert {(cell.method.name, cell.seed) for _, cell in chosen} == {("plain", 1)}
    assert [cell.config.student.learning_rate for _, cell in chosen] == [1e-4, 3e-4]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  plain: {}", "  plane: {}", "no method 'plane' .closest: 'plain'."),
        ("  plain: {}", "  plain: {options: {shots: 3}}", "unknown setting 'shots'"),
        ("  plain: {}", "  no_augment: {}", "baseline 'plain' is none of"),
        ("  pgkd: {settings", "  pgkd: {setings", "unknown setting 'methods.pgkd.setings'"),
        ("  control: {}", "  control: {of: plain}", "say of which entry"),
        ("seeds: [1, 2]", "", "seeds"),
        ("seeds: [1, 2]", "seeds: [1, 1]", "a seed is there twice"),
        ("  plain: {}", "  plain: {}\n  ../out: {method: plain}", "becomes a folder"),
        (
            "  plain: {}",
            "  plain: {}\n  no_augment: {options: {shots: 0}}",
            r"shots: .* to 1, found 0",
        ),
        ("  plain: {}", "  plain: {settings: {data: {test_rows: 5}}}", "has test_rows of its own"),
        (
            "  control: {}",
            "  frozen: {of: pgkd, options: {samples: 0}}",
            r"samples: .* to 1, found 0",
        ),
        (
            "  control: {}",
            "  frozen: {of: pgkd, options: {at_once: 1}}",
            "at_once: .* true or false, found 1",
        ),
        (
            "  plain: {}",
            "  plain: {}\n  evokd: {options: {passes: null}}",
            "passes: .* whole number, found None",
        ),
        (
            "  plain: {}",
            "  plain: {}\n  eda: {options: {alpha: high}}",
            "alpha: .* number, found 'high'",
        ),
        ("[1e-4, 3e-4]", "[]", "has no values to choose from"),
        ("  plain: {}", "  plain: {}\n  other: {method: pgkd}", "say of which entry"),
        ("  plain: {}", "  plain: {of: pgkd}", "'plain' repeats nothing"),
        ("  plain: {}", "  plain: {seeds: [3, 3]}", "a seed is there twice"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_comparison(written(tmp_path, PLAN.replace(old, new)))


def test_settings_and_datasets_are_checked_before_anything_runs(tmp_path: Path) -> None:
    plan = read_comparison(written(tmp_path, PLAN.replace("num_kd_steps", "num_steps")))
    with pytest.raises(ConfigError, match=r"unknown setting 'pgkd\.num_steps'"):
        cells(plan, tmp_path, {})
    with pytest.raises(ConfigError, match=r"'bank' is neither one of .* nor a folder"):
        cells(read_comparison(written(tmp_path)), None, {})


@pytest.mark.parametrize(
    "file", sorted([*ROOT.glob("evals/tables/*.yaml"), *ROOT.glob("evals/studies/*.yaml")]), ids=lambda file: file.stem
)
def test_the_tables_of_the_project_can_be_run(tmp_path: Path, file: Path) -> None:
    written(tmp_path)
    (tmp_path / "bank").rename(tmp_path / "banking77")  # the one dataset that is not the paper's
    plan = read_comparison(file)
    seeds = sum(len(entry.seeds or plan.seeds) for entry in plan.methods.values())
    assert len(cells(plan, tmp_path, {})) == len(plan.datasets) * seeds
    assert plan.hours and set(plan.paper) <= set(plan.datasets)
    assert all(set(entries) <= set(plan.methods) for entries in plan.paper.values())


def test_a_part_of_a_plan(tmp_path: Path) -> None:
    plan = read_comparison(written(tmp_path))
    part = narrowed(
        plan, ["bank"], ["plain", "pgkd"], [7], {"student": {"name": "other"}, "teacher": {"spec": "openai:m"}}
    )
    found = cells(part, tmp_path, {})
    assert [(cell.dataset, cell.entry, cell.seed) for cell in found] == [("bank", "plain", 7), ("bank", "pgkd", 7)]
    assert {cell.config.seed for _, cell in tuning_cells(part, "bank", tmp_path)} == {1}  # whatever part is asked for
    assert list(narrowed(plan, methods=["plain", "control"]).methods) == ["control", "plain", "pgkd"]
    fixed = narrowed(plan, overrides={"student": {"learning_rate": 1e-3}})
    assert fixed.tune == {} and {cell.config.student.learning_rate for cell in cells(fixed, tmp_path, {})} == {1e-3}
    assert {cell.config.student.name for cell in found} == {"other"} and found[1].config.teacher.spec == "openai:m"
    for wrong, message in (
        ({"datasets": ["bonk"]}, "no dataset 'bonk'"),
        ({"methods": ["plain", "eda"]}, "no method 'eda'"),
        ({"overrides": {"teacher": {"prompt": "agent"}}}, r"method 'pgkd' is about teacher\.prompt"),
        ({"methods": ["pgkd"]}, "baseline 'plain' is none of .* with `baseline`"),
    ):
        with pytest.raises(ConfigError, match=message):
            narrowed(plan, **wrong)
    file = written(tmp_path, PLAN.replace("methods:", "baseline: nothing\nmethods:"))
    with pytest.raises(ConfigError, match="baseline 'nothing'"):
        read_comparison(file)
    assert read_comparison(file, "plain").baseline == "plain"


def test_metrics_are_those_of_scikit_learn() -> None:
    drawn = np.random.default_rng(0)
    gold, predicted = drawn.integers(0, 7, 200), drawn.integers(0, 8, 200)  # class 7 has no rows
    assert METRICS["accuracy"](gold, predicted, 9) == (gold == predicted).mean()
    for name in ("macro", "weighted"):
        expected = f1_score(gold, predicted, average=name, labels=np.unique(gold), zero_division=0)
        assert METRICS[f"{name}_f1"](gold, predicted, 9) == pytest.approx(expected)


def test_an_answer_without_a_label_is_wrong() -> None:
    gold = np.array([0, 1, 1])
    assert METRICS["accuracy"](gold, np.array([0, 1, -1]), 2) == pytest.approx(2 / 3)
    assert METRICS["macro_f1"](gold, np.array([0, 1, -1]), 2) == pytest.approx((1 + 2 / 3) / 2)


def test_the_interval_holds_a_difference_that_is_there_and_zero_where_there_is_none() -> None:
    drawn = np.random.default_rng(1)
    gold = drawn.integers(0, 4, 500)

    def guesses(right: float) -> np.ndarray:
        return np.where(drawn.random((3, 500)) < right, gold, (gold + 1) % 4)

    better = paired_difference(METRICS["accuracy"], gold, guesses(0.8), guesses(0.6), 4)
    assert 0.1 < better.low < 0.2 < better.high < 0.3 and better.seeds == 3
    alike = paired_difference(METRICS["accuracy"], gold, guesses(0.7), guesses(0.7), 4)
    assert alike.low < 0 < alike.high
    same = guesses(0.7)
    assert paired_difference(METRICS["accuracy"], gold, same, same, 4).high == 0


def test_a_single_value_has_no_deviation() -> None:
    assert spread([0.5]).deviation is None
    assert spread([0.4, 0.6]).deviation == pytest.approx(0.1414, abs=1e-4)


DONE = Done(
    dataset="bank", entry="plain", seed=1, method="plain", gold=(0, 1, 1, 0), predicted=(0, 1, 0, 0), num_classes=2,
    validation_loss=0.5, accepted=(), rows=80, gradient_steps=10, requests=0, input_tokens=0, output_tokens=0, cost=0.0,
    seconds=12.0,
)  # fmt: skip


def grid() -> tuple[ComparisonFile, Grid]:
    plan = ComparisonFile.model_validate(
        {"seeds": (1, 2), "datasets": {"bank": {}}, "methods": {"plain": {}, "pgkd": {}, "zero_shot": {}},
         "paper": {"bank": {"pgkd": {"accuracy": 0.9}}}}
    )  # fmt: skip
    better = replace(DONE, entry="pgkd", predicted=(0, 1, 1, 0), requests=3, input_tokens=1000, cost=None)
    return plan, Grid((DONE, replace(DONE, seed=2), better), {"bank, zero_shot, seed 1": "no answer"}, {})


def test_lines_have_means_differences_and_what_is_missing() -> None:
    plain, pgkd = lines(*grid())
    assert plain.metrics["accuracy"].mean == 0.75 and plain.differences == {} and plain.missing == ()
    assert pgkd.metrics["accuracy"].mean == 1 and pgkd.differences["accuracy"].mean == 0.25
    assert pgkd.differences["accuracy"].seeds == 1 and pgkd.missing == (2,) and pgkd.cost is None
    assert pgkd.paper == {"accuracy": 0.9}


def test_tables() -> None:
    plan, filled = grid()
    text = to_markdown(plan, filled)
    assert "| plain | 0.750 ± 0.000 |" in text and "| pgkd | 1.000 (+0.250: " in text and "accuracy 0.9" in text
    assert "not known" in text and "bank, pgkd, seed 2: no result" in text and "zero_shot, seed 1: no answer" in text
    rows = list(csv.DictReader(to_csv(filled).splitlines()))
    assert [(row["entry"], row["seed"], row["accuracy"]) for row in rows] == [
        ("plain", "1", "0.75"), ("plain", "2", "0.75"), ("pgkd", "1", "1.0"),
    ]  # fmt: skip
    assert to_json(plan, filled)["lines"][1]["missing"] == (2,)


def test_cells_of_other_test_rows_are_not_compared() -> None:
    plan, filled = grid()
    other = Grid((replace(DONE, gold=(1, 1, 1, 0)), filled.done[2]), {}, {})
    with pytest.raises(StorageError, match="different test rows"):
        lines(plan, other)


def texts_of_svg(file: Path) -> list[str]:
    return [element.text or "" for element in ElementTree.parse(file).iter("{http://www.w3.org/2000/svg}text")]


def test_a_plot_has_methods_side_by_side_with_the_papers_figures(tmp_path: Path) -> None:
    plan, filled = grid()
    file = tmp_path / "plot.svg"
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot(plan, lines(plan, filled), "accuracy", "accuracy", file)
    assert {"bank", "plain", "pgkd", "accuracy", "in the paper"} <= set(texts_of_svg(file))


def test_a_plot_over_rows_where_a_source_is_there_in_several_sizes(tmp_path: Path) -> None:
    sizes = {f"bank-{rows}": {"source": "bank", "settings": {"data": {"rows": rows}}} for rows in (250, 1000)}
    plan = ComparisonFile.model_validate({"seeds": (1,), "datasets": sizes, "methods": {"plain": {}, "pgkd": {}}})
    done = [replace(DONE, dataset=name, entry=entry) for name in sizes for entry in plan.methods]
    file = tmp_path / "plot.svg"
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot(plan, lines(plan, Grid(tuple(done), {}, {})), "macro_f1", "macro F1", file)
    assert {"bank", "labelled rows", "250", "1,000", "plain", "pgkd", "macro F1"} <= set(texts_of_svg(file))


def test_a_plot_that_cannot_be_drawn(tmp_path: Path) -> None:
    plan, filled = grid()
    shown = lines(plan, filled)
    with pytest.raises(ConfigError, match="nothing to plot"):
        plot(plan, [], "accuracy", "accuracy", tmp_path / "plot.png")
    with pytest.raises(ConfigError, match="odd"):
        plot(plan, shown, "accuracy", "accuracy", tmp_path / "plot.odd")
    with pytest.raises(StorageError, match="cannot be written"):
        plot(plan, shown, "accuracy", "accuracy", tmp_path / "none" / "plot.png")


def test_an_entry_may_take_as_many_tokens_as_another(tmp_path: Path) -> None:
    def plan(text: str) -> ComparisonFile:
        methods = f"methods:\n  plain: {{}}\n{text}\n  pgkd: {{seeds: [2]}}\n"
        return read_comparison(written(tmp_path, PLAN[: PLAN.index("methods")] + methods))

    found = cells(plan("  zerogen: {tokens_of: pgkd}"), tmp_path, {})
    places = [(cell.entry, cell.seed) for cell in found if cell.dataset == "bank"]
    assert places == [("pgkd", 2), ("plain", 1), ("zerogen", 1), ("plain", 2), ("zerogen", 2)]
    assert {cell.tokens_of for cell in found if cell.entry == "zerogen"} == {("pgkd", 2)}
    for wrong in ("  zerogen: {tokens_of: plain}", "  eda: {tokens_of: pgkd}", "  zerogen: {tokens_of: zerogen}"):
        with pytest.raises(ConfigError, match="it is for methods that ask an LLM"):
            plan(wrong)


def test_settings_make_another_cell_where_they_matter_to_its_method(tmp_path: Path) -> None:
    plan = read_comparison(written(tmp_path))
    (cell, *_) = (one for one in cells(plan, tmp_path, {}) if one.method.name == "control")

    def student(method: str, **changes: object) -> dict[str, object]:
        config = cell.config.changed({f"student.{name}": value for name, value in changes.items()})
        return dict(METHODS[method].settings_read(config)["student"])

    before = student("control")
    for name, other in (("label_smoothing", 0.5), ("soft_labels", 0.5), ("balance", 0.5), ("head_init", "random")):
        assert student("control", **{name: other}) != before
    assert student("plain", soft_labels=0.5) == student("plain", soft_labels=0.0)  # it has no KD step

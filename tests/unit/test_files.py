"""Files that are there whole or as they were, also where a process is killed or the power fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgkd_agent.errors import StorageError
from pgkd_agent.files import append_lines, remove_leftovers, replacing, settle_folder, sync, write_whole


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of what was synced, in order."""
    names: list[str] = []
    fsync = os.fsync

    def noted(number: int) -> None:
        names.append(Path(os.readlink(f"/proc/self/fd/{number}")).name)
        fsync(number)

    monkeypatch.setattr(os, "fsync", noted)
    yield names


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="says which file is synced")
@pytest.mark.parametrize(
    "write", [lambda file: write_whole(file, "a"), lambda file: append_lines(file, [{"a": 1}])], ids=["whole", "line"]
)
def test_a_file_and_its_name_and_those_of_new_folders_are_on_disk(
    tmp_path: Path, synced: list[str], write: Callable[[Path], None]
) -> None:
    write(tmp_path / "new" / "folder" / "file")
    *before, content, folder = synced
    assert {*before} == {tmp_path.name, "new"} and content.startswith("file") and folder == "folder"


def test_a_folder_in_the_place_of_another_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No space"), replacing(tmp_path / "folder") as fresh:
        fresh.mkdir()
        (fresh / "half").write_text("")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []
    with replacing(tmp_path / "folder") as fresh:
        fresh.mkdir()
        (fresh / "whole").write_text("a")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["folder", "folder/whole"]


def test_what_killed_processes_left_is_told_from_files_of_a_similar_name(tmp_path: Path) -> None:
    for name in ("a.json.0123abcd.new", "b.json.0123abcd.new", "a.json.new", "a.json.0123abcx.new"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path, "a.json")
    assert not (tmp_path / "a.json.0123abcd.new").exists() and len(list(tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.json.new", "a.json.0123abcx.new"}


@pytest.mark.parametrize(("there", "left"), [({"best.old", "best.new"}, "old"), ({"best.old", "best"}, "")])
def test_a_folder_is_settled_wherever_its_replacement_was_stopped(tmp_path: Path, there: set[str], left: str) -> None:
    for name in there:
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name.removeprefix("best").removeprefix("."))
    settle_folder(tmp_path / "best")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert (tmp_path / "best" / "weights").read_text() == left


def test_a_file_system_that_syncs_no_folders_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_number: int) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    sync(tmp_path)

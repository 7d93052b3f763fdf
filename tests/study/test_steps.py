"""Would catch: half results believed, silent reuse of another recipe's result, unstable fingerprints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speechscale.errors import DataError, StaleStep
from speechscale.study import steps as s
from speechscale.study.steps import Step, fingerprint, is_complete, run_step

TOY = "tests.study.toy"


def step(name: str = "a", value: float = 1.0, function: str = "write", **more: object) -> Step:
    return Step(name=name, function=f"{TOY}:{function}", config={"value": value, **more})


def test_record_is_complete_and_names_its_files(tmp_path: Path) -> None:
    record = run_step(step(), tmp_path, {})
    assert record["results"] == {"total": 1.0}
    assert list(record["files"]) == ["value.txt"]
    assert json.loads((tmp_path / "a" / "record.json").read_text()) == record
    assert is_complete(step(), tmp_path / "a", fingerprint(step(), {}), {})


def test_changed_recipe_is_refused_with_the_differing_field(tmp_path: Path) -> None:
    run_step(step(train={"lr": 0.0003}), tmp_path, {})
    changed = step(train={"lr": 0.001})
    with pytest.raises(StaleStep, match=r"train\.lr: 0\.0003 -> 0\.001"):
        is_complete(changed, tmp_path / "a", fingerprint(changed, {}), {})


def test_a_remade_input_is_named(tmp_path: Path) -> None:
    run_step(step("b"), tmp_path, {})
    user = Step(name="a", function=f"{TOY}:write", config={"value": 1.0}, inputs=("b",))
    run_step(user, tmp_path, {"b": "old"})
    with pytest.raises(StaleStep, match="input 'b': made anew"):
        is_complete(user, tmp_path / "a", fingerprint(user, {"b": "new"}), {"b": "new"})


def test_a_missing_or_shortened_file_means_redo(tmp_path: Path) -> None:
    run_step(step(), tmp_path, {})
    (tmp_path / "a" / "value.txt").write_text("1")
    assert not is_complete(step(), tmp_path / "a", fingerprint(step(), {}), {})
    (tmp_path / "a" / "value.txt").unlink()
    assert not is_complete(step(), tmp_path / "a", fingerprint(step(), {}), {})


def test_a_step_works_in_a_folder_of_its_own_name(tmp_path: Path) -> None:
    """Results of a study's run are called like the run, not by a process number that changes their bytes."""
    record = run_step(step("run/part/small-s0", function="name_itself"), tmp_path, {})
    assert record["results"] == {"called": "small-s0"}
    assert (tmp_path / "run" / "part" / "small-s0" / "value.txt").read_text() == "small-s0"
    assert list((tmp_path / ".partial").iterdir()) == []


def test_a_failed_step_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="item 7"):
        run_step(step(function="fail"), tmp_path, {})
    assert not (tmp_path / "a").exists()
    assert list((tmp_path / ".partial").iterdir()) == []


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    run_step(step(), tmp_path, {})
    (tmp_path / "a" / "record.json").write_text('{"half":')
    with pytest.raises(DataError, match=r"record\.json is not a readable record"):
        s.read_record(tmp_path / "a")


def test_a_config_without_stable_text_is_refused() -> None:
    with pytest.raises(TypeError):
        fingerprint(step(value=lambda: 1), {})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Out of range float"):
        fingerprint(step(value=float("nan")), {})


def test_fingerprint_depends_on_every_part_of_the_recipe_and_on_nothing_else() -> None:
    base = fingerprint(step(), {"x": "1"})
    assert base == fingerprint(
        Step(name="other", function=f"{TOY}:write", config={"value": 1.0}, seconds=99), {"x": "1"}
    )
    assert base != fingerprint(step(value=2.0), {"x": "1"})
    assert base != fingerprint(step(function="fail"), {"x": "1"})
    assert base != fingerprint(step(), {"x": "2"})

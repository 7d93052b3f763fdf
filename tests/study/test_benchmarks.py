"""Would catch: a study that scores other items than its benchmark holds, a benchmark that passes for another after it
was made anew, columns of runs.csv that hide which benchmark they are of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from speechscale.errors import DataError
from speechscale.evals.benchmarks.prepare import prepare
from speechscale.evals.metrics import Metric
from speechscale.evals.results import read_results
from speechscale.model.sizes import SIZES
from speechscale.model.slm import new_model
from speechscale.skips import read_skips
from speechscale.speech.units import fit_tokenizer
from speechscale.study.benchmarks import asked_of, columns_of, make_benchmark
from speechscale.study.loading import resolve
from speechscale.study.recipes import study_steps
from speechscale.study.scoring import evaluate_sets
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from tests.evals.benchmarks import source, texts
from tests.study.test_loading import changed


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spoken benchmark and a speech tokenizer."""
    root = tmp_path_factory.mktemp("study")
    prepare(source(texts()), root / "bench", voices=("us-f2",), workers=0)
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    fit_tokenizer([noise], encoder="mfcc", clusters=6, seed=0).save(root / "tokenizer")
    return root


def config_of(folders: Path, pairs: int | None = None) -> dict[str, object]:
    sha = json.loads((folders / "bench/benchmark.json").read_text())["sha256"]
    return {"folder": str(folders / "bench"), "sha256": sha, "pairs": pairs, "seed": 0}


def test_a_run_is_asked_what_the_benchmark_holds(folders: Path, tmp_path: Path) -> None:
    made = make_benchmark(config_of(folders, pairs=2), {"tokenizer/t": folders / "tokenizer"}, tmp_path)
    assert made["items"] == 2
    evals = resolve(changed(evals={"directions": ["ss", "st"], "benchmarks": {"toy": "x"}})).parts["main"].evals
    (asked,) = asked_of(evals, {"benchmark/toy/units": tmp_path, "tokens/t": tmp_path})
    assert (asked.name, len(asked.items)) == ("toy", 2)
    assert asked.table is not None
    assert len(asked.table) == 4  # both candidates of both items, nothing else
    vocabulary = Vocabulary.joint(build_text_tokenizer(["tom ann sam ran it was late the end came cat"]), 6)
    model = new_model(SIZES["0.02M"], vocabulary.size, 256, seed=0)
    out = tmp_path / "run"
    out.mkdir()
    found = evaluate_sets(model, vocabulary, evals, {"benchmark/toy/units": tmp_path}, context=256, out=out)
    assert found["columns"]["acc_toy_ss_n"] == found["columns"]["acc_toy_st_n"] == 2
    results = read_results(out)
    assert results.benchmarks["toy"]["sha256"] == config_of(folders)["sha256"]
    assert results.stamp["speech_tokenizer"]
    # A TextLM of another language: text is left out with a reason per item, speech is scored, nothing is silent.
    foreign = Vocabulary.joint(build_text_tokenizer(["zwei"]), 6)
    other = new_model(SIZES["0.02M"], foreign.size, 256, seed=0)
    far = tmp_path / "far"
    far.mkdir()
    found = evaluate_sets(other, foreign, evals, {"benchmark/toy/units": tmp_path}, context=256, out=far)
    assert ("acc_toy_ss" in found["columns"], "acc_toy_st" in found["columns"]) == (True, False)
    assert [skip.id.endswith("(st)") for skip in read_skips(far / "skips.jsonl")] == [True, True]


def test_other_questions_under_the_old_name_are_noticed(folders: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="prepared anew since the study began"):
        make_benchmark({**config_of(folders), "sha256": "0" * 64}, {"tokenizer/t": folders / "tokenizer"}, tmp_path)
    steps = {}
    for folder in (folders / "bench", tmp_path / "later"):
        study = resolve(changed(evals={"benchmarks": {"toy": str(folder)}}))
        step = next(step for step in study_steps(study) if step.name.startswith("benchmark/toy/"))
        steps[folder.name] = step.config["sha256"]
        runs = [step for step in study_steps(study) if step.name.startswith("run/")]
        assert all(any(name.startswith("benchmark/toy/") for name in run.inputs) for run in runs)
    assert steps == {"bench": config_of(folders)["sha256"], "later": ""}  # not prepared yet: can be planned


def metric(benchmark: str, name: str, tag: str = "") -> Metric:
    return Metric(
        benchmark=benchmark,
        set=name,
        direction="ss",
        tag=tag,
        protocol="speechscale",
        estimate=0.5,
        se=0.1,
        low=0.4,
        high=0.6,
        n_items=9,
        n_pairs=9,
        n_phenomena=1,
        n_ties=0,
        n_identical=0,
    )


def test_columns_say_which_benchmark() -> None:
    many = [metric("sblimp", "sblimp", f"subtype {i}") for i in range(5)]
    few = [metric("swuggy", "swuggy", tag) for tag in ("in_vocab", "oov")]
    found = columns_of(
        [metric("storyworld", "facts", "read"), metric("sblimp", "sblimp"), *many, *few, metric("mine", "gender-x")]
    )
    assert [(m.set, m.tag) for m in found] == [
        ("facts", "read"),
        ("sblimp", ""),
        ("swuggy", "in_vocab"),
        ("swuggy", "oov"),
        ("mine_gender_x", ""),
    ]


def test_recordings_may_be_scored_by_benchmarks_and_not_by_the_world() -> None:
    recorded = {"corpus": {"kind": "folder", "path": "x"}, "evals": {"sets": ["facts"]}}
    data = changed(**recorded)
    data["corpus"].pop("speech_hours")
    with pytest.raises(DataError, match=r"evals\.benchmarks"):
        resolve(data)
    data["evals"] = {"benchmarks": {"bad name": "x"}}
    with pytest.raises(DataError, match="bad name"):
        resolve(data)
    with pytest.raises(DataError, match="own sets have this name"):
        study_steps(resolve(changed(evals={"benchmarks": {"storyworld": "x"}})))
    data["evals"] = {"benchmarks": {"mine": "x"}}
    assert resolve(data).parts["main"].evals.scores

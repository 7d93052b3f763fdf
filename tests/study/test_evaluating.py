"""Would catch: a score that is not the model's own, a killed run that starts anew or scores twice, results of one
recipe taken for those of another, whole public trees that cannot be scored by one command."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from speechscale.cli import cli
from speechscale.corpus.encode import VoiceLoader, sample_waveforms
from speechscale.errors import DataError, StaleStep
from speechscale.evals import evaluate as evaluate_module
from speechscale.evals.benchmarks.benchmark import Benchmark
from speechscale.evals.benchmarks.prepare import prepare
from speechscale.evals.benchmarks.raw import RawItem
from speechscale.evals.choices import read_choices
from speechscale.evals.evaluate import How
from speechscale.evals.protocols import PROTOCOLS
from speechscale.evals.results import measured_under, read_results
from speechscale.model.sizes import SIZES
from speechscale.model.slm import load_model, new_model, save_model
from speechscale.progress import Watch
from speechscale.records import Item, Utterance
from speechscale.skips import read_skips
from speechscale.speech.units import SpeechTokenizer, fit_tokenizer
from speechscale.study.drawing import drawn
from speechscale.study.evaluating import Wanted, run_benchmarks
from speechscale.study.located import Located, locate
from speechscale.study.text_tasks import export_benchmark
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from tests.evals.benchmarks import FACTS, source, texts
from tests.evals.trees import STORIES, story_table, storycloze_tree, zerospeech_tree

UNITS = 12


@contextlib.contextmanager
def unwatched(_what: str) -> Iterator[Watch]:
    yield lambda _progress: None


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random joint model that knows the words of the small stories, and a speech tokenizer beside it."""
    folder = tmp_path_factory.mktemp("model")
    words = " ".join(" ".join((*told, good, bad)) for _, told, good, bad in STORIES).lower()
    extra = " ".join(" ".join((raw.item.prompt, raw.item.good, raw.item.bad)) for raw in texts())
    extra += " the cat cats dog dogs run runs sleeps sleep"
    vocabulary = Vocabulary.joint(build_text_tokenizer([words, extra]), UNITS)
    save_model(new_model(SIZES["0.02M"], vocabulary.size, 256, seed=0), folder)
    vocabulary.save(folder)
    said = [Utterance(id="a", text="tom had a dog", speaker="us-f2", split="train", segments=("tom had a dog.",))]
    audio = sample_waveforms(said, loader=VoiceLoader(), max_hours=1)
    fit_tokenizer(audio, encoder="mfcc", clusters=UNITS, seed=0).save(folder / "tokenizer")
    return folder


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    """Three stories spoken by a voice, with word times."""
    folder = tmp_path_factory.mktemp("bench") / "toy"
    return prepare(source(texts()), folder, voices=("us-f2",), workers=0)


def parts(model: Path) -> Located:
    return locate(model, tokenizer=model / "tokenizer")


def test_scores_are_those_of_transformers(model: Path, bench: Benchmark, tmp_path: Path) -> None:
    # Written anew from the definitions: units of the joined recording, cut at the first word of the ending.
    wanted = Wanted(protocols=("speechscale", "sims"), workers=0)
    results = run_benchmarks(parts(model), {"toy": bench}, tmp_path / "out", wanted, watch_of=unwatched)
    scored = {(c.id, c.direction, str(c.layout)): c for c in results.scores()}
    assert len(scored) == 3 * 4 * 2
    vocabulary, table = Vocabulary.load(model), bench.units(model / "tokenizer", workers=0)
    lm = load_model(model)
    for item in bench.items():
        for side in ("good", "bad"):
            row = table.ids.index(f"{item.id}/{side}")
            frames = np.repeat(table.row_units(row), table.row_durations(row))
            cut = table.row_word_frames(row)[len(item.prompt.split()), 0]
            runs = [frames[: int(cut)], frames]
            lengths = [1 + int((run[1:] != run[:-1]).sum()) for run in runs]
            ids = [vocabulary.eos_id, *(int(unit) + vocabulary.unit_start for unit in table.row_units(row))]
            with torch.inference_mode():
                logprobs = lm(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
                bare = lm(input_ids=torch.tensor([ids[1:]])).logits[0].log_softmax(-1)
            each = [float(logprobs[i - 1, ids[i]]) for i in range(1, len(ids))]
            found = getattr(scored[item.id, "ss", "eos-crossing"], side)
            assert found.whole_full == pytest.approx(sum(each), abs=1e-3)
            assert found.ending_full == pytest.approx(sum(each[lengths[0] :]), abs=1e-3)
            assert found.whole_s == pytest.approx(len(frames) / table.frame_rate_hz)
            sims = getattr(scored[item.id, "ss", "none-crossing"], side)
            assert sims.whole_full == pytest.approx(
                sum(float(bare[i - 1, ids[i + 1]]) for i in range(1, len(ids) - 1)), abs=1e-3
            )
            assert sims.whole_tokens == len(ids) - 2


def test_a_killed_run_goes_on_and_scores_nothing_twice(
    model: Path, bench: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Wanted(how=How(batch_tokens=1), workers=0)
    whole = run_benchmarks(parts(model), {"toy": bench}, tmp_path / "whole", wanted, watch_of=unwatched)
    out, seen = tmp_path / "out", list[str]()
    real = evaluate_module.join

    def dying(good: Any, *rest: Any) -> Any:
        if len(seen) == 5:
            raise KeyboardInterrupt
        seen.append(good.name)
        return real(good, *rest)

    monkeypatch.setattr(evaluate_module, "join", dying)
    with pytest.raises(KeyboardInterrupt):
        run_benchmarks(parts(model), {"toy": bench}, out, wanted, watch_of=unwatched)
    with (out / ".journal/choices.jsonl").open("ab") as file:
        file.write(b'{"half a li')  # what a kill in the middle of a line leaves
    first, seen[:] = set(seen), []

    def counting(good: Any, *rest: Any) -> Any:
        seen.append(good.name)
        return real(good, *rest)

    monkeypatch.setattr(evaluate_module, "join", counting)
    again = run_benchmarks(parts(model), {"toy": bench}, out, wanted, watch_of=unwatched)
    assert (len(first), len(seen), first & set(seen)) == (5, 7, set())
    assert again.scores() == whole.scores()
    assert again.metrics == whole.metrics
    assert sorted(path.name for path in out.iterdir()) == [
        "recipe.json",
        "results.json",
        "scores.parquet",
        "skips.jsonl",
    ]


def test_a_limit_encodes_the_drawn_recordings_only(model: Path, tmp_path: Path) -> None:
    fresh = prepare(source(texts()), tmp_path / "toy", voices=("us-f2",), workers=0)
    wanted = Wanted(directions=("ss",), limit=1, workers=0)
    results = run_benchmarks(parts(model), {"toy": fresh}, tmp_path / "out", wanted, watch_of=unwatched)
    (choice,) = {choice.id for choice in results.scores()}
    (encoded,) = (fresh.folder / "units").glob("*/units.json")
    assert json.loads(encoded.read_text())["info"]["read"] == 2
    whole = run_benchmarks(
        parts(model),
        {"toy": fresh},
        tmp_path / "whole",
        Wanted(directions=("ss",), workers=0),
        watch_of=unwatched,
    )
    assert [c for c in whole.scores() if c.id == choice] == results.scores()


def test_a_finished_folder_is_read_and_another_recipe_refused(
    model: Path, bench: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = Wanted(directions=("tt",), limit=2)
    done = run_benchmarks(parts(model), {"toy": bench}, tmp_path, wanted, watch_of=unwatched)
    assert [m["n_items"] for m in done.metrics] == [2]

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("scored again")

    monkeypatch.setattr(evaluate_module, "score_stream", never)
    assert run_benchmarks(parts(model), {"toy": bench}, tmp_path, wanted, watch_of=unwatched) == done
    with pytest.raises(StaleStep, match=r"another recipe \(directions: .* -> None; limit: 2 -> None"):
        run_benchmarks(parts(model), {"toy": bench}, tmp_path, Wanted(), watch_of=unwatched)


def test_the_stamp_says_what_was_scored_by_what(model: Path, bench: Benchmark, tmp_path: Path) -> None:
    wanted = Wanted(directions=("ss",), workers=0)
    run_benchmarks(parts(model), {"toy": bench}, tmp_path, wanted, watch_of=unwatched)
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["benchmarks"]["toy"]["sha256"] == bench.sha256
    assert saved["stamp"]["vocabulary"] == Vocabulary.load(model).fingerprint
    assert saved["stamp"]["speech_tokenizer"] == SpeechTokenizer.load(model / "tokenizer").fingerprint
    assert set(saved["protocols"]) == {"speechscale"}
    assert saved["protocols"]["speechscale"]["normalization"] == "mean"
    assert read_choices(tmp_path / "scores.parquet")[1]["stamp"]["model"] == saved["stamp"]["model"]
    assert {m["n_items"] for m in read_results(tmp_path).metrics} == {3}


def test_a_protocol_nobody_asked_for_is_read_off_the_scores(model: Path, bench: Benchmark, tmp_path: Path) -> None:
    few = Wanted(directions=("tt",), protocols=("speechscale",))
    both = Wanted(directions=("tt",), protocols=("speechscale", "slam"))
    asked = run_benchmarks(parts(model), {"toy": bench}, tmp_path / "both", both, watch_of=unwatched)
    later = run_benchmarks(parts(model), {"toy": bench}, tmp_path / "few", few, watch_of=unwatched)
    assert measured_under(later, PROTOCOLS["slam"]).metrics == asked.metrics
    with pytest.raises(DataError, match=r"'none-crossing' of protocol 'sims' \(scored: eos-crossing\)"):
        measured_under(later, PROTOCOLS["sims"])


def test_what_a_set_does_not_have_is_said(model: Path, tmp_path: Path) -> None:
    # Would catch: `--direction st` on sentences without prompt that ends with numbers of other sets and no word.
    alone = RawItem(item=Item(id="g", set="grammar", pair="g", good="the cat runs", bad="the cat run"))
    bench = prepare(source([*texts(), alone]), tmp_path / "bench", voices=("us-f2",), workers=0)
    wanted = Wanted(directions=("st",), workers=0)
    results = run_benchmarks(parts(model), {"toy": bench}, tmp_path / "out", wanted, watch_of=unwatched)
    assert {m["set"] for m in results.metrics} == {"toy"}
    (skip,) = read_skips(tmp_path / "out/skips.jsonl")
    assert (skip.id, "there are: ss, tt" in skip.reason) == ("toy: set 'grammar' (st)", True)
    assert results.benchmarks["toy"]["dropped"] == 1


def test_a_textless_model_takes_the_usual_protocols_it_can_write(tmp_path: Path) -> None:
    vocabulary = Vocabulary.textless(UNITS)
    save_model(new_model(SIZES["0.02M"], vocabulary.size, 256, seed=0), tmp_path / "model")
    vocabulary.save(tmp_path / "model")
    noise = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    fit_tokenizer([noise], encoder="mfcc", clusters=UNITS, seed=0).save(tmp_path / "tokenizer")
    crossing = replace(source(texts()), facts=replace(FACTS, protocol="sims-cross"))
    bench = prepare(crossing, tmp_path / "bench", voices=("us-f2",), workers=0)
    located = locate(tmp_path / "model", tokenizer=tmp_path / "tokenizer")
    results = run_benchmarks(located, {"toy": bench}, tmp_path / "out", Wanted(workers=0), watch_of=unwatched)
    assert {(m["protocol"], m["direction"]) for m in results.metrics} == {("speechscale", "ss")}
    asked = Wanted(protocols=("sims-cross",), workers=0)
    with pytest.raises(DataError, match="opens sequences with a marker"):
        run_benchmarks(located, {"toy": bench}, tmp_path / "other", asked, watch_of=unwatched)


def test_pairs_are_drawn_whole_and_by_the_seed() -> None:
    items = [raw.item for raw in texts()] * 1
    assert drawn(items, None, 0) == items
    assert len(drawn(items, 2, 0)) == 2
    assert drawn(items, 2, 0) == drawn(items, 2, 0)
    assert len({tuple(item.id for item in drawn(items, 1, seed)) for seed in range(20)}) == 3


def test_what_belongs_to_a_model(model: Path, tmp_path: Path) -> None:
    assert locate(model).speech_tokenizer is None
    with pytest.raises(DataError, match=r"which speech tokenizer .*--tokenizer DIR"):
        locate(model).need_tokenizer()
    with pytest.raises(DataError, match="no such folder"):
        locate(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no model in it"):
        locate(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"without vocabulary\.json"):
        locate(tmp_path)


def test_a_tokenizer_of_other_units_is_refused(model: Path, bench: Benchmark, tmp_path: Path) -> None:
    other = fit_tokenizer([np.random.default_rng(0).standard_normal(16_000)], encoder="mfcc", clusters=5, seed=0)
    other.save(tmp_path / "five")
    with pytest.raises(DataError, match=r"makes 5 units, the model .* trained on 12"):
        run_benchmarks(
            locate(model, tokenizer=tmp_path / "five"),
            {"toy": bench},
            tmp_path / "out",
            Wanted(workers=0),
            watch_of=unwatched,
        )
    with pytest.raises(DataError, match=r"makes 5 units, the model .* trained on 12"):
        export_benchmark(locate(model, tokenizer=tmp_path / "five"), bench, tmp_path / "tasks", watch_of=unwatched)
    assert not (bench.folder / "units" / other.fingerprint[:16]).exists(), "nothing is encoded in vain"


def test_exported_tasks_say_which_tokenizer_made_their_units(model: Path, bench: Benchmark, tmp_path: Path) -> None:
    made = export_benchmark(parts(model), bench, tmp_path, workers=0, watch_of=unwatched)
    assert {task.direction for task in made} == {"ss", "st", "ts", "tt"}
    facts = json.loads((tmp_path / "export.json").read_text())["facts"]
    assert facts["speech_tokenizer"] == SpeechTokenizer.load(model / "tokenizer").fingerprint


def run(*words: object) -> Result:
    result = CliRunner().invoke(cli, ["eval", "run", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_public_trees_by_one_command(model: Path, tmp_path: Path) -> None:
    # The issue's own case: a ZeroSpeech tree and a StoryCloze tree, spoken by voices, no step before.
    zerospeech_tree(tmp_path / "zr", voiced=True)
    storycloze_tree(tmp_path / "ssc/audio", voiced=True)
    story_table(tmp_path / "ssc/stories.csv")
    told = f"stories={tmp_path}/ssc/stories.csv,word_times={tmp_path}/ssc/times"
    command = [
        *(model, f"swuggy={tmp_path}/zr", f"sblimp={tmp_path}/zr", f"sstorycloze:{told}={tmp_path}/ssc/audio"),
        *("--tokenizer", model / "tokenizer", "--cache", tmp_path / "cache", "--out", tmp_path / "out"),
        *("--workers", "0"),
    ]
    done = run(*command)
    assert done.exit_code == 0, done.output
    found = {
        (m["set"], m["direction"], m["protocol"]): m for m in read_results(tmp_path / "out").metrics if not m["tag"]
    }
    assert found["swuggy", "ss", "twist"]["n_items"] == 6
    assert found["swuggy", "ss", "twist"]["n_pairs"] == 3
    assert found["sblimp", "ss", "cuervo"]["n_phenomena"] == 2
    saved = json.loads((tmp_path / "out/results.json").read_text())["phenomena"]
    parts = [p["estimate"] for p in saved if (p["set"], p["direction"], p["protocol"]) == ("sblimp", "ss", "cuervo")]
    assert np.mean(parts) == pytest.approx(found["sblimp", "ss", "cuervo"]["estimate"]), "a macro is their mean"
    assert {d for s, d, _ in found if s == "sstorycloze"} == {"ss", "st", "ts", "tt"}
    assert {d for s, d, _ in found if s == "swuggy"} == {"ss"}
    assert "swuggy " in done.output
    again = run(*command)
    assert again.exit_code == 0
    missing = run(*(command[0], "swuggy=" + str(tmp_path / "no")), "--out", tmp_path / "x")
    assert missing.exit_code == 2
    assert "does not exist" in missing.output

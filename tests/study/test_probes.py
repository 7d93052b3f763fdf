"""Would catch: probes that change a training, that hang or disagree on two processes, or that end one by failing."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechscale.corpus.encode import VoiceLoader, sample_waveforms
from speechscale.corpus.tables import write_items
from speechscale.errors import DataError
from speechscale.evals.benchmarks.benchmark import open_benchmark
from speechscale.evals.benchmarks.prepare import prepare
from speechscale.evals.benchmarks.raw import RawItem
from speechscale.evals.evaluate import How, evaluate
from speechscale.evals.metrics import measure
from speechscale.evals.protocols import get_protocol
from speechscale.model.sizes import SIZES
from speechscale.model.slm import new_model
from speechscale.records import Item, UnitTable, UnitTableBuilder, Utterance
from speechscale.speech.units import fit_tokenizer, write_units
from speechscale.study.benchmarks import asked_of, make_benchmark
from speechscale.study.drawing import draw_items
from speechscale.study.probes import Probes, ProbeSet, open_probes, shared_out, study_probes
from speechscale.study.spec import Evals
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer
from speechscale.train.job import ProbeTask
from speechscale.train.loop import Hooks
from speechscale.train.parallel import SOLO, Group, open_group
from tests.evals.benchmarks import source
from tests.train.conftest import CONTEXT, TEXT, UNITS, VOCAB
from tests.train.processes import run_processes
from tests.train.runs import summary, train_small

WORDS = [a + b for a in "bdgklmnprst" for b in "aeiou"][: TEXT - 2]
PAIRS = 13


def vocabulary() -> Vocabulary:
    """The ids of the small trainings, with words and units to them."""
    made = Vocabulary.joint(build_text_tokenizer([" ".join(WORDS)]), UNITS)
    assert made.size == VOCAB
    return made


def items(pairs: int = PAIRS, name: str = "cloze") -> list[Item]:
    """Symmetric pairs: prompts of two words, candidates that swap their roles."""
    made = []
    for i in range(pairs):
        for j in range(2):
            swap = [WORDS[(i + k * 7) % len(WORDS)] for k in (3, 4)]
            good, bad = swap if j == 0 else swap[::-1]
            prompt = f"{WORDS[(2 * i + j) % len(WORDS)]} {WORDS[(3 * i + j + 1) % len(WORDS)]}"
            made.append(Item(id=f"{name}-{i}-{j}", set=name, prompt=prompt, good=good, bad=bad, pair=f"{name}-{i}"))
    return made


def table_of(chosen: list[Item]) -> UnitTable:
    rng = np.random.default_rng(0)
    builder = UnitTableBuilder(frame_rate_hz=25.0, num_units=UNITS)
    for item in chosen:
        for side in ("good", "bad"):
            words = [*item.prompt.split(), getattr(item, side)]
            units = np.cumsum(rng.integers(1, 3, 3 * len(words))) % UNITS
            builder.add(
                id=f"{item.id}/{side}",
                speaker="v",
                split="items",
                text=" ".join(words),
                units=units,
                durations_frames=np.full(len(units), 2),
                words=words,
                word_frames=np.array([[6 * w, 6 * w + 6] for w in range(len(words))]),
            )
    return builder.build()


def probes(group: Group = SOLO, every: int = 1) -> Probes:
    chosen = items()
    entry = ProbeSet(
        task="small",
        name="cloze",
        items=chosen,
        table=table_of(chosen),
        directions=("ss", "st", "tt"),
        protocol=get_protocol("speechscale"),
        how=How(context=CONTEXT),
        every=every,
    )
    return Probes(sets=[entry], vocabulary=vocabulary(), group=group)


def trained(group: Group = SOLO, *, probed: bool, **settings: Any) -> dict[str, Any]:
    """A small training, and what was probed along it."""
    hooks = Hooks(probe=probes(group)) if probed else Hooks()
    result, _ = train_small(group, hooks=hooks, **settings)
    return summary(result) | {"probes": [dict(check.probes) for check in result.checks]}


def trained_together(settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """On each process: every training with and without probes."""
    with open_group("cpu", timeout_s=60) as group:
        return {
            name: {str(probed): trained(group, probed=probed, **chosen) for probed in (True, False)}
            for name, chosen in settings.items()
        }


def bare(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key != "probes"}


def test_a_probed_training_is_the_same_training_bit_for_bit() -> None:
    before = torch.random.get_rng_state(), random.getstate()
    with_probes = trained(probed=True)
    assert torch.equal(before[0], torch.random.get_rng_state()), "a probe drew a random number"
    assert before[1] == random.getstate()
    assert bare(with_probes) == bare(trained(probed=False))
    assert [set(found["small"]["cloze"]) for found in with_probes["probes"]] == [{"ss", "st", "tt"}] * 3
    assert all(found["small"]["cloze"]["ss"]["n"] == 2 * PAIRS for found in with_probes["probes"])


def test_numbers_are_those_of_an_evaluation_of_the_same_items() -> None:
    model = new_model(SIZES["0.05M"], VOCAB, CONTEXT, seed=3)
    model.train()
    found = probes()(model, 1, False)["small"]["cloze"]
    assert model.training
    chosen = items()
    scored = evaluate(model, vocabulary(), chosen, table_of(chosen), directions=("ss", "st", "tt"))
    for metric in measure(scored, replicates=100):
        numbers = found[metric.direction]
        assert (numbers["estimate"], numbers["n"]) == (metric.estimate, metric.n_items)
        assert numbers["se"] == pytest.approx(metric.se)
        assert numbers["chance"] == 0.5


def test_chance_is_that_of_the_protocol() -> None:
    """Both items of a pair right, as a question of three endings: one in three."""
    some = probes()
    some.sets = [replace(some.sets[0], protocol=get_protocol("speechscale:aggregate=all"))]
    found = some(new_model(SIZES["0.05M"], VOCAB, CONTEXT, seed=3), 1, False)["small"]["cloze"]
    assert [numbers["chance"] for numbers in found.values()] == pytest.approx([1 / 3] * 3)


def test_every_says_which_checks_and_the_last_has_everything() -> None:
    model, some = new_model(SIZES["0.05M"], VOCAB, CONTEXT, seed=3), probes(every=3)
    assert [bool(some(model, number, number == 5)) for number in range(1, 6)] == [False, False, True, False, True]


@pytest.mark.parametrize("trains", ["rows", "lora"])
def test_adapted_models_can_be_probed(trains: str) -> None:
    """peft hides the causal LM one level deeper."""
    found = trained(probed=True, trains=trains)
    assert found["probes"][-1]["small"]["cloze"]["tt"]["n"] == 2 * PAIRS


@pytest.mark.slow
def test_two_processes_probe_as_one(tmp_path: Path) -> None:
    """Items shared out under DDP; under FSDP every process scores all; training is bit-equal to the unprobed one."""
    how = {"ddp": {"parallel": "ddp"}, "fsdp": {"parallel": "fsdp"}, "lora": {"parallel": "fsdp", "trains": "lora"}}
    first, second = run_processes("tests.study.test_probes:trained_together", tmp_path, settings=how)
    for name, chosen in how.items():
        assert bare(first[name]["True"]) == bare(first[name]["False"]), name
        assert first[name]["True"]["probes"] == second[name]["True"]["probes"], name
        alone = trained(probed=True, trains=chosen.get("trains", "all"))["probes"]
        for got, expected in zip(first[name]["True"]["probes"], alone, strict=True):
            for direction, numbers in expected["small"]["cloze"].items():
                found = got["small"]["cloze"][direction]
                assert found["n"] == numbers["n"]
                # rounding of another world size may decide at most one close item otherwise
                assert found["estimate"] == pytest.approx(numbers["estimate"], abs=1.01 / numbers["n"])


def test_diverged_weights_are_a_note_and_not_an_end() -> None:
    model, some = new_model(SIZES["0.05M"], VOCAB, CONTEXT, seed=3), probes()
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    assert some(model, 1, False) == {}
    (note,) = some.notes()
    assert note.startswith("probe small, cloze: not scored (")
    assert "diverged" in note
    some(model, 2, False)
    assert some.notes() == [], "told once"


def test_subsets_are_whole_pairs_fixed_and_nested() -> None:
    chosen = items(40)
    small, large = draw_items(chosen, 0, least=10), draw_items(chosen, 0, least=31)
    assert (len(small), len(large)) == (10, 32)
    assert set(Counter(item.pair for item in small).values()) == {2}
    assert {item.id for item in small} < {item.id for item in large}
    assert small == draw_items(chosen, 0, least=10)
    assert small != draw_items(chosen, 1, least=10)
    assert [item.id for item in small] == [item.id for item in chosen if item in small], "in their order"
    assert draw_items(chosen, 0, pairs=5) == small
    assert draw_items(chosen, 0, least=1_000) == chosen
    pairs = {item.pair for item in small}
    assert pairs != {item.pair for item in chosen[:10]}, "drawn, not the first"


def test_processes_share_whole_pairs() -> None:
    chosen = items(5)
    parts = [shared_out(chosen, Group(rank=rank, world=3)) for rank in range(3)]
    assert sorted(item.id for part in parts for item in part) == sorted(item.id for item in chosen)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert not {item.pair for item in parts[0]} & {item.pair for item in parts[1]}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text alone, so that nothing has to be encoded."""
    out = tmp_path_factory.mktemp("bench") / "b"
    prepare(source(RawItem(item=item) for item in items(6)), out)
    return out


def test_a_benchmark_folder_is_opened_with_what_it_has(benchmark: Path) -> None:
    made = open_probes({"p": ProbeTask(benchmark=str(benchmark), items=4, every=2)}, vocabulary(), context=64)
    assert made is not None
    (entry,) = made.sets
    assert entry.directions == ["tt"]
    assert entry.table is None
    assert (entry.every, entry.how.context) == (2, 64)
    assert len(entry.items) == 4
    assert open_probes({}, vocabulary()) is None


def test_a_tokenizer_with_as_many_units_is_still_another(benchmark: Path, tmp_path: Path) -> None:
    """Else a model is probed on units of other sounds, and the curve says chance for ever."""
    said = [Utterance(id="a", text="tom had a dog", speaker="us-f2", split="train", segments=("tom had a dog.",))]
    made = fit_tokenizer(sample_waveforms(said, loader=VoiceLoader(), max_hours=1), encoder="mfcc", clusters=8, seed=0)
    made.save(tmp_path / "tokenizer")
    task = {"p": ProbeTask(benchmark=str(benchmark), speech_tokenizer=str(tmp_path / "tokenizer"))}
    with pytest.raises(
        DataError, match=rf"probes\.p: tokenizer .* is {made.fingerprint[:12]}, .* are of ffffffffffff;"
    ):
        open_probes(task, vocabulary(), trained_on={"f" * 64})
    assert open_probes(task, vocabulary(), trained_on={"f" * 64, made.fingerprint}) is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": "nowhere"}, "no benchmark.json"),
        ({"sets": ("storys",)}, "has no set 'storys'"),
        ({"directions": ("ss",)}, r"has no direction of ss .* it has: tt"),
        ({"protocol": "sim"}, "protocol 'sim' is not known"),
    ],
)
def test_what_cannot_be_probed_is_said_before_training(benchmark: Path, changes: dict[str, Any], message: str) -> None:
    task = ProbeTask(**{"benchmark": str(benchmark), **changes})
    with pytest.raises(DataError, match=message):
        open_probes({"p": task}, vocabulary())


def test_a_study_probes_its_own_sets_on_one_subset(tmp_path: Path) -> None:
    everything = items(20) + items(20, "facts")
    write_items(tmp_path / "items.parquet", everything)
    write_units(tmp_path / "units.parquet", table_of(everything), "f" * 64)
    evals = Evals(sets=("cloze", "facts"), directions=("ss", "tt"), pairs=20, probe_pairs=4)
    inputs = {"items/w": tmp_path, "item-units/w": tmp_path}

    def made_of(evals: Evals, vocabulary: Vocabulary) -> Probes | None:
        return study_probes(evals, vocabulary, asked_of(evals, inputs), context=CONTEXT)

    made = made_of(evals, vocabulary())
    assert made is not None
    model = new_model(SIZES["0.05M"], VOCAB, CONTEXT, seed=0)
    found = made(model, 1, False)
    assert {name: set(directions) for name, directions in found.items()} == {
        "cloze": {"ss", "tt"},
        "facts": {"ss", "tt"},
    }
    assert found["facts"]["tt"]["n"] == 8
    again = made_of(evals, vocabulary())
    assert again is not None
    assert [entry.items for entry in again.sets] == [entry.items for entry in made.sets]
    assert made_of(evals.model_copy(update={"probe_pairs": 0}), vocabulary()) is None
    empty = made_of(evals.model_copy(update={"sets": ("cloze", "gone")}), vocabulary())
    assert empty is not None
    assert [entry.name for entry in empty.sets] == ["cloze"], "all items of a set can be dropped"
    textless = made_of(evals, Vocabulary.textless(UNITS))
    assert textless is not None
    assert [entry.directions for entry in textless.sets] == [["ss"], ["ss"]]


def test_a_study_probes_its_benchmarks_too(benchmark: Path, tmp_path: Path) -> None:
    sha256 = open_benchmark(benchmark).sha256
    config = {"folder": str(benchmark), "sha256": sha256, "pairs": None, "seed": 0}
    make_benchmark(config, {"tokenizer/t": tmp_path}, tmp_path / "step")
    evals = Evals(benchmarks={"mine": str(benchmark)}, directions=("tt",), probe_pairs=3)
    made = study_probes(evals, vocabulary(), asked_of(evals, {"benchmark/mine/u": tmp_path / "step"}), context=CONTEXT)
    assert made is not None
    found = made(new_model(SIZES["0.05M"], VOCAB, CONTEXT, seed=0), 1, False)
    assert [entry.name for entry in made.sets] == list(found)
    assert all(name.startswith("mine_") for name in found), "named as the columns of runs.csv"
    assert {name: level["tt"]["n"] for name, level in found.items()} == {e.name: len(e.items) for e in made.sets}

"""Catches a published model whose card says what no record holds, borrows scores or samples, or tells paths."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard

from speechscale.cli import cli
from speechscale.corpus.tables import read_utterances, write_utterances
from speechscale.errors import DataError
from speechscale.evals.weights import weights_sha256
from speechscale.model.folders import load_model, save_model
from speechscale.publish.bundle import verify_bundle
from speechscale.publish.choose import best_run
from speechscale.publish.model_parts import beside, hub_name
from speechscale.publish.models import Wanted, publish_model
from speechscale.report.card_check import validate_card
from speechscale.report.card_facts import Terms
from speechscale.study.located import locate
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.job import TrainJob
from speechscale.train.parallel import SOLO
from speechscale.train.run import Options, prepare, run_job
from tests.model.peers import small
from tests.publish.tiny_study import make_study, vocabulary
from tests.train.test_job import job_table, make_data


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("study"))


def test_best_run_is_chosen_by_its_selection_loss(study: Path) -> None:
    assert best_run(study, "interleaved").name == "c-s0"
    assert best_run(study, "main/interleaved").name == "c-s0"
    with pytest.raises(DataError, match=r"no run of 'textless'.*main/interleaved"):
        best_run(study, "textless")
    with pytest.raises(DataError, match="not the folder of a study"):
        best_run(study / "steps", "interleaved")


def test_a_run_becomes_a_bundle_whose_card_holds_its_records(study: Path, tmp_path: Path) -> None:
    run = best_run(study, "interleaved")
    made = publish_model(run, tmp_path / "out", Wanted(terms=Terms(license="apache-2.0"), name="toy"))
    assert [file.path for file in made.files] == [file.path for file in verify_bundle(tmp_path / "out")]
    card = (tmp_path / "out/README.md").read_text()
    assert validate_card(card, "model") == []
    for fact in (
        "arm `interleaved` in part `main` of the study `toy`", "*Does it work?*", "22,000 (without embeddings 20,000)",
        "64 tokens, about 3 s of speech", "| encoder | MFCC |", "4,000 tokens of text, 0.8 passes, 5e8 FLOPs",
        "interleaved 0.5, speech 0.4, text 0.1", "by word, speech spans poisson(2)", "12,345 predicted, 50 steps",
        "256 tokens (4 rows of 64)", "0.03, cosine, to 0.1 of it, warm-up 0.05 of the tokens", "| seed | 0 |",
        "espeak-ng (espeakng-loader 0.2.4)",
        "| git commit | 0123456789ab |", "| 1e9 | exact", "2 more runs of this arm and size, 2e9",
        "8.0 s by the clock, 7.5 s of processors", "x86_64 Linux 2 cores", "2.043 per unit | 0.019 | test",
        "0.520 (chance)", "| 0.700 | [0.650, 0.750] | 100 | 50 |", "Hours by split: select 3, test 4, train 3.",
        "v0, v1 (synthetic)", 'continue_("tom ran", into="speech")', "Utterances dropped: 3.", "no vocoder",
    ):  # fmt: skip
        assert fact in card, fact
    assert str(tmp_path) not in card
    assert str(study) not in card
    results = ModelCard(card).data.eval_results
    assert [result.metric_value for result in results] == [0.52, 0.7]
    assert ModelCard(card).data.language == ["en"]
    found = locate(tmp_path / "out")
    assert found.speech_tokenizer == tmp_path / "out/speech_tokenizer"
    assert weights_sha256(load_model(found.folder)) == weights_sha256(load_model(run / "model"))
    again = publish_model(run, tmp_path / "again", Wanted(terms=Terms(license="apache-2.0"), name="toy"))
    assert made.files == again.files, "the same records, the same bytes"


def test_samples_go_along_with_the_run_that_made_them_only(study: Path, tmp_path: Path) -> None:
    best = publish_model(best_run(study, "interleaved"), tmp_path / "best")
    assert sorted(Path(file.path).name for file in best.files if file.path.startswith("samples/")) == [
        "0-interleaved.wav",
        "0-original.wav",
        "0-resynthesized.wav",
    ]
    other = publish_model(study / "steps/run/main/a-s0", tmp_path / "other")
    assert not [file for file in other.files if file.path.startswith("samples/")]
    assert "## Samples" not in (tmp_path / "other/README.md").read_text()
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    (copy / "steps/samples/main/0-interleaved.wav").write_bytes(b"other")
    with pytest.raises(DataError, match="not what its record names"):
        publish_model(copy / "steps/run/main/c-s0", tmp_path / "altered")
    assert not (tmp_path / "altered").exists()


def test_licences_are_those_of_the_utterances(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", kind="corpus")
    imported = tmp_path / "study/imported"
    imported.mkdir()
    info = {"source": "/home/somebody/secret/books", "format": "librispeech"}
    (imported / "corpus.json").write_text(json.dumps({"info": info}))
    publish_model(best_run(study, "interleaved"), tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "CC-BY-4.0: 1 h; CC0-1.0: 2 h" in card
    assert "imported from books (format librispeech)" in card
    assert "samples/0-resynthesized.wav" in card
    assert "original" not in card, "recordings of people do not go along"
    assert "/home/somebody" not in card
    assert "synthetic" not in card
    said = study / "steps/corpus/c/utterances.parquet"
    utterances = list(read_utterances(said))
    write_utterances(said, [replace(u, licence="") if u.id == "u0" else u for u in utterances])
    publish_model(best_run(study, "interleaved"), tmp_path / "partly")
    card = (tmp_path / "partly/README.md").read_text()
    assert "not recorded: 1 h; CC0-1.0: 2 h" in card, "hours without a licence are not lost"
    assert "60 minutes without a licence in any record" in card


def test_a_local_folder_is_no_model_of_the_hub(tmp_path: Path) -> None:
    run = tmp_path / "project/runs/mine"
    (tmp_path / "project/models/lm").mkdir(parents=True)
    run.mkdir(parents=True)
    assert hub_name("Qwen/Qwen2.5-0.5B", run) == "Qwen/Qwen2.5-0.5B"
    assert hub_name("models/lm", run) is None, "named from the folder where the job was started"
    assert hub_name("/data/lm", run) is None
    assert beside("models/lm", run) == tmp_path / "project/models/lm"


def test_a_model_without_records_says_so(tmp_path: Path) -> None:
    lock = vocabulary()
    save_model(small(lock.size), tmp_path / "bare")
    lock.save(tmp_path / "bare")
    made = publish_model(tmp_path / "bare", tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "No record of a study's run or of a training job lies beside it." in card
    assert "| begins with | not recorded |" in card
    assert "Time: not recorded. Machine: not recorded." in card
    assert any("no license" in note for note in made.notes)
    record = {"layout": "speech_language_model", "source": {"name": "slprl/SIMS-7B", "commit": "abc"}, "notes": []}
    (tmp_path / "bare/import.json").write_text(json.dumps(record))
    publish_model(tmp_path / "bare", tmp_path / "imported")
    card = (tmp_path / "imported/README.md").read_text()
    assert ModelCard(card).data.base_model == "slprl/SIMS-7B"
    assert (tmp_path / "imported/import.json").is_file()


def test_scores_of_other_weights_are_refused(study: Path, tmp_path: Path) -> None:
    run = best_run(study, "interleaved")
    saved = json.loads((run / "results.json").read_text())
    for name, model in (("own", run / "model"), ("other", study / "steps/run/main/a-s0/model")):
        saved["stamp"] = {"model": {"name": name, "sha256": weights_sha256(load_model(model))}}
        saved["metrics"] = [saved["metrics"][0] | {"benchmark": "sblimp", "set": "dev"}]
        saved["benchmarks"] = {"sblimp": {"title": "spoken BLiMP", "sha256": "e" * 64, "licence": ""}}
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(saved))
    made = publish_model(run, tmp_path / "out", Wanted(results=(tmp_path / "own",)))
    assert [metric.benchmark for metric in made.facts.metrics] == ["storyworld", "storyworld", "sblimp"]
    twice = publish_model(run, tmp_path / "twice", Wanted(results=(tmp_path / "own", tmp_path / "own")))
    assert len(twice.facts.metrics) == 3, "a score is shown once"
    with pytest.raises(DataError, match="they are of 'other'"):
        publish_model(run, tmp_path / "borrowed", Wanted(results=(tmp_path / "other",)))
    with pytest.raises(DataError, match="file is missing"):
        publish_model(run, tmp_path / "borrowed", Wanted(results=(tmp_path / "nothing",)))
    assert not (tmp_path / "borrowed").exists()


def test_generated_speech_is_measured_and_heard(study: Path, tmp_path: Path) -> None:
    run = best_run(study, "interleaved")
    wer = {"estimate": 0.21, "low": 0.18, "high": 0.25, "n": 40, "se": 0.02}
    sampling = {"direction": "ss", "prompt_s": 3.0, "temperature": 0.8, "top_k": 25, "seed": 0}
    model = {"name": "x", "sha256": weights_sha256(load_model(run / "model"))}
    saved = {
        "format": "speechscale generation results",
        "format_version": 1,
        "stamp": {"recipe": {"model": model, "sampling": sampling}, "span": "whole", "asr": {"asr": "pocketsphinx"}},
        "metrics": {"resynthesis": {"wer": wer}, "new_units": {"estimate": None, "n": 0}},
    }
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured/results.json").write_text(json.dumps(saved))
    spoken = tmp_path / "spoken"
    (spoken / "audio").mkdir(parents=True)
    shutil.copy(study / "steps/samples/main/0-original.wav", spoken / "audio/p0-0.wav")
    row = {
        "format": "speechscale.sample.1", "id": "p0-0", "number": 0, "into": "speech", "text": "he ran",
        "prompt": {"id": "p0", "kind": "text", "text": "tom won", "source": ""}, "audio": "audio/p0-0.wav",
        "prompt_s": 0.0,
    }  # fmt: skip
    (spoken / "recipe.json").write_text(json.dumps({"model": model}))
    (spoken / "samples.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"audio": ""}) + "\n")
    publish_model(run, tmp_path / "out", Wanted(results=(tmp_path / "measured",), samples=spoken))
    card = (tmp_path / "out/README.md").read_text()
    assert "| word error rate of the vocoder's speech | 0.21 [0.18, 0.25] (n = 40) |" in card
    assert "recognizer pocketsphinx" in card
    assert "new units per sample" not in card, "a number that does not exist is left out"
    assert "was not measured" not in card
    assert "[into speech, sample 0](samples/p0-0.wav): he ran" in card
    (spoken / "samples.jsonl").write_text(json.dumps(row | {"audio": "../secret.wav"}))
    (tmp_path / "secret.wav").write_bytes(b"x")
    with pytest.raises(DataError, match="no file below it"):
        publish_model(run, tmp_path / "escaped", Wanted(samples=spoken))
    for broken in ("[1]", "{", '{"audio": "audio/p0-0.wav", "prompt": 3}'):
        (spoken / "samples.jsonl").write_text(broken)
        with pytest.raises(DataError, match="cannot be read"):
            publish_model(run, tmp_path / "escaped", Wanted(samples=spoken))
    for recipe, fault in (({"model": model | {"sha256": "0" * 64}}, "they are of 'x'"), ({}, "do not say which")):
        (spoken / "recipe.json").write_text(json.dumps(recipe))
        with pytest.raises(DataError, match=fault):
            publish_model(run, tmp_path / "borrowed", Wanted(samples=spoken))


def test_what_was_altered_after_training_is_refused(study: Path, tmp_path: Path) -> None:
    run = best_run(study, "interleaved")
    for name in ("results.json", "model/model.safetensors"):
        shutil.copytree(study, tmp_path / name / "study")
        altered = tmp_path / name / "study" / run.relative_to(study)
        (altered / name).write_bytes((run / name).read_bytes() + b" ")
        with pytest.raises(DataError, match=r"not what its record names"):
            publish_model(altered, tmp_path / "out")
    made = publish_model(run / "model", tmp_path / "inside", Wanted(dtype="bf16"))
    card = (tmp_path / "inside/README.md").read_text()
    assert made.facts.arm == "interleaved", "the run is known from its model"
    assert "measured before its weights were cast" in card
    with pytest.raises(DataError, match="OWNER/NAME"):
        publish_model(run, tmp_path / "out", Wanted(repo="../x"))
    with pytest.raises(DataError, match="no letters"):
        publish_model(run, tmp_path / "out", Wanted(name="\udcff"))
    assert not (tmp_path / "out").exists()


def test_a_training_job_has_a_card(tmp_path: Path) -> None:
    store = make_data(tmp_path / "data")
    job = TrainJob.model_validate(job_table(store))
    run_job(prepare(job), tmp_path / "run", SOLO, Options())
    publish_model(tmp_path / "run", tmp_path / "out", Wanted(terms=Terms(license="mit")))
    card = (tmp_path / "out/README.md").read_text()
    assert validate_card(card, "model") == []
    result = json.loads((tmp_path / "run/result.json").read_text())
    for fact in (
        "It is the result of one training", "| begins with | random weights |", "the store of 'mixed' again",
        "markers at every switch", "interleaved 0.3, speech 0.5, text 0.2",
        "2,000 predicted", "192 tokens (4 rows of 48)", "0.005, cosine", "| code | speechscale", "training alone",
        f"{result['losses_final']['select']['speech_per_unit']:.3f} per unit", "token store 'store'", "not recorded",
    ):  # fmt: skip
        assert fact in card, fact
    assert "rows of new ids" not in card, "nothing was extended"
    assert "This training gave it 5 minutes" in card, "a store that is read twice is counted once"
    assert "prompt.wav" not in card, "there is no speech tokenizer to hear with"
    assert str(tmp_path) not in card
    best = publish_model(tmp_path / "run/best", tmp_path / "best")
    assert "at its best checkpoint" in (tmp_path / "best/README.md").read_text()
    assert best.facts.tokens_seen == result["best_tokens_seen"]
    (tmp_path / "run/result.json").unlink()
    with pytest.raises(DataError, match="let the training end"):
        publish_model(tmp_path / "run", tmp_path / "early")


def test_a_preference_tuning_has_a_card(tmp_path: Path) -> None:
    lock = vocabulary()
    for name in ("slm", "tuned/model"):
        save_model(small(lock.size), tmp_path / name)
        lock.save(tmp_path / name)
    section = {"pairs": "/home/somebody/pairs.jsonl", "batch_pairs": 4, "context": 64, "learning_rate": 5e-5}
    model = {"start": "slm", "path": str(tmp_path / "slm")}
    job = TrainJob.model_validate({"model": model, "preference": section}).model_dump(mode="json")
    (tmp_path / "tuned/job.json").write_text(json.dumps({"job": job, "vocabulary": lock.fingerprint}))
    result = {"steps": 9, "precision": "fp32", "seconds": 3.0, "tokens_seen": 500}
    (tmp_path / "tuned/result.json").write_text(json.dumps(result))
    publish_model(tmp_path / "tuned", tmp_path / "out", Wanted(terms=Terms(license="mit")))
    card = (tmp_path / "out/README.md").read_text()
    assert validate_card(card, "model") == []
    for fact in (
        "| preference: beta | 0.1 |",
        "| preference: pairs | pairs.jsonl |",
        "trained on: slm",
        "This training was preference tuning",
    ):
        assert fact in card, fact
    assert "/home" not in card
    assert str(tmp_path) not in card


def test_the_command_lists_and_sends_nothing(study: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    out = str(tmp_path / "out")
    made = run(cli, ["publish", str(study), out, "--best", "interleaved", "--license", "mit", "--repo", "me/toy"])
    assert made.exit_code == 0, made.output
    assert "best run by its selection loss: main/c-s0" in made.output
    for file in verify_bundle(tmp_path / "out"):
        assert f"{file.sha256}  {file.path}" in made.output
    assert "-> model me/toy (private)" in made.output
    assert "nothing was sent" in made.output
    assert 'from_pretrained("me/toy")' in (tmp_path / "out/README.md").read_text()
    again = run(cli, ["publish", out])
    assert again.exit_code == 0, again.output
    assert "checksums hold; nothing was sent" in again.output
    (tmp_path / "out/config.json").write_text("{}")
    broken = run(cli, ["publish", out, "--repo", "me/toy"])
    assert broken.exit_code == 2
    assert "'config.json' was altered" in broken.output
    twice = run(cli, ["publish", str(study), out, "--best", "interleaved"])
    assert "exists; give a new folder" in twice.output
    assert run(cli, ["publish", str(study / "steps")]).exit_code == 2
    wrong = run(cli, ["publish", str(study), str(tmp_path / "x"), "--best", "interleaved", "--license", "mine"])
    assert "license: 'mine'" in wrong.output
    assert not (tmp_path / "x").exists()


def test_vocabulary_travels_locked(study: Path, tmp_path: Path) -> None:
    publish_model(best_run(study, "interleaved"), tmp_path / "out")
    assert Vocabulary.load(tmp_path / "out").fingerprint == vocabulary().fingerprint

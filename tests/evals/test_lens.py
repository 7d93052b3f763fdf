"""Would catch: a lens that does not find the layer that carries the words, or finds one where there is none; controls
that keep no frequencies; wrong places in time, ranks that reward ties, layers read without the final norm, results
that depend on the batch, words that get lost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GraniteConfig

from speechscale.errors import DataError
from speechscale.evals.analysis import lens_reader
from speechscale.evals.analysis.lens import lay_out, look, top_tokens
from speechscale.evals.analysis.lens_places import Spoken, inside, lag_pairs, nearest, relative_pairs
from speechscale.evals.analysis.lens_reader import _Reader, _visited
from speechscale.evals.analysis.lens_records import METRICS, RANKS, Lens, LensConfig, write_words
from speechscale.evals.analysis.lens_summary import _resamples, summarize, typical_utterance
from speechscale.model.anatomy import blocks_of, body_of, close_hidden, embedding_of, head_of
from speechscale.model.families import TRAITS
from speechscale.model.shape import Size
from speechscale.model.sizes import get_size
from speechscale.model.slm import new_model
from speechscale.records import NO_TIME, UnitTable, UnitTableBuilder
from speechscale.skips import SkipLog
from speechscale.tokens.subwords import Subwords
from speechscale.tokens.vocabulary import Vocabulary, build_text_tokenizer

WORDS = [f"w{letter}{other}" for letter in "abcdefgh" for other in "abcdefgh"]
UNITS = 40


@pytest.fixture(scope="module")
def joint() -> Vocabulary:
    return Vocabulary.joint(build_text_tokenizer([" ".join(WORDS)]), UNITS)


def speech(utterances: int = 30, words: int = 8, seed: int = 0) -> UnitTable:
    """Random words of three to five units of one to three frames, a pause of two frames between words."""
    rng = np.random.default_rng(seed)
    builder = UnitTableBuilder(frame_rate_hz=50.0, num_units=UNITS)
    for number in range(utterances):
        said = [WORDS[i] for i in (rng.random(words) ** 2 * len(WORDS)).astype(int)]
        units, durations, spans, at = [0], [2], [], 2
        for _ in said:
            lengths = rng.integers(1, 4, int(rng.integers(3, 6))).tolist()
            spans.append((at, at + sum(lengths)))
            for length in lengths:
                units.append(int(rng.choice([u for u in range(1, UNITS) if u != units[-1]])))
                durations.append(length)
            units.append(0)
            durations.append(2)
            at += sum(lengths) + 2
        builder.add(
            id=f"u{number}",
            speaker="s",
            split="test",
            text=" ".join(said),
            units=np.array(units),
            durations_frames=np.array(durations),
            words=said,
            word_frames=np.array(spans),
        )
    return builder.build()


def random_model(vocabulary: Vocabulary, name: str = "llama:0.02M", layers: int = 4) -> Any:
    return new_model(dataclasses.replace(get_size(name), layers=layers), vocabulary.size, 256, seed=0).eval()


class Planted(nn.Module):
    """A block whose output is, at each unit, the head's row of the word heard there (or `lag` units earlier)."""

    def __init__(self, block: nn.Module, rows: dict[tuple[int, ...], torch.Tensor]) -> None:
        super().__init__()
        self.block, self.rows, self.ids = block, rows, torch.zeros(0)

    def forward(self, *args: Any, **more: Any) -> Any:
        out = self.block(*args, **more)
        hidden = (out[0] if isinstance(out, tuple) else out).clone()
        for row, ids in enumerate(self.ids.tolist()):
            for sequence, wanted in self.rows.items():
                if tuple(ids[: len(sequence)]) == sequence:
                    hidden[row, : len(sequence)] = wanted
        return hidden


def plant(model: Any, vocabulary: Vocabulary, table: UnitTable, layer: int, lag: int = 0) -> Any:
    """Make block `layer` carry the token of the word that sounds; other positions keep what they had before it."""
    material = lay_out(table, vocabulary, LensConfig(), SkipLog())
    weight = torch.nn.functional.normalize(head_of(model).weight.detach().float(), dim=1)
    rows = {}
    for spoken in material.spoken:
        wanted = torch.zeros(len(spoken.ids), weight.shape[1])
        for code, share in zip(spoken.codes, inside(spoken), strict=True):
            at = np.flatnonzero(share) + spoken.opening + lag
            wanted[at[at < len(wanted)]] = weight[material.asked[code]]
        rows[tuple(spoken.ids.tolist())] = wanted * 10
    planted = Planted(blocks_of(model)[layer - 1], rows)
    blocks_of(model)[layer - 1] = planted
    blocks_of(model)[layer].register_forward_hook(lambda _, __, out: out.roll(7, -1))  # lost again one layer later
    body_of(model).register_forward_pre_hook(
        lambda _, __, kwargs: setattr(planted, "ids", kwargs["input_ids"]), with_kwargs=True
    )
    return model


def test_finds_the_layer_that_carries_the_words(joint: Vocabulary) -> None:
    table = speech()
    model = random_model(joint)
    with torch.no_grad():  # rows as long as each other, so that the own row is the likeliest
        embedding_of(model).weight.copy_(torch.nn.functional.normalize(embedding_of(model).weight, dim=1))
    model = plant(model, joint, table, layer=2)
    found = look(model, joint, table)
    figures = summarize(found, replicates=200)
    assert figures["best"]["layer"] == 2
    for metric in ("hit1", "hit10", "reciprocal_rank", "ever10"):
        assert figures["layers"][2][metric]["own"] == pytest.approx(1)
    # Another word is the same one as often as words repeat.
    counts = np.unique(table.words, return_counts=True)[1]
    same = float((counts * (counts - 1)).sum() / (len(table.words) * (len(table.words) - 1)))
    assert figures["layers"][2]["hit1"]["chance"] == pytest.approx(same, abs=1e-6)
    assert figures["best"]["cross_fitted"] == pytest.approx(figures["best"]["difference"], abs=1e-6)
    # Silence around: the state holds no word there, and layers in front hold none anywhere.
    assert figures["layers"][1]["hit10"]["difference"] < 0.2
    picture = np.array(figures["picture"]["own"][2], float)
    assert picture[8:18] == pytest.approx(1)
    assert picture[[7, 18]].max() < 0.5
    typical = top_tokens(model, joint, table, found.rows[typical_utterance(found, 2)], found.config)
    assert all(entry["rank"] == 1 and entry["top"][0] == word["token"] for word, entry in zip(
        typical["words"], typical["layers"][2], strict=True))  # fmt: skip


def test_finds_how_late_the_words_come(joint: Vocabulary) -> None:
    table = speech()
    on_time, late = (
        summarize(look(plant(random_model(joint), joint, table, layer=2, lag=lag), joint, table), replicates=50)
        for lag in (0, 2)
    )
    assert late["best"]["layer"] == on_time["best"]["layer"] == 2
    profile = np.array([v or 0 for v in late["lag"]["start"]["difference"]])
    shift = late["lag"]["start"]["peak_frames"] - on_time["lag"]["start"]["peak_frames"]
    assert shift >= 2  # two units of one frame or more
    assert late["lag"]["start"]["peak_low"] <= late["lag"]["start"]["peak_frames"] <= late["lag"]["start"]["peak_high"]
    assert profile[late["lag"]["start"]["frames"].index(0)] < 0.2  # not yet there when the word starts


def test_finds_nothing_in_random_models(joint: Vocabulary) -> None:
    """Of 20 intervals (four layers, five draws of speech) one may miss 0 by chance; three or more are no accident."""
    missed = 0
    for seed in range(5):
        figures = summarize(look(random_model(joint), joint, speech(seed=seed)), replicates=300)
        for layer in figures["layers"][1:]:
            low, high = layer["hit10"]["low"], layer["hit10"]["high"]
            assert high > low
            missed += not low <= 0 <= high
    assert missed < 3


def test_always_guessing_the_most_frequent_word_is_worth_nothing(joint: Vocabulary) -> None:
    table = speech()
    material = lay_out(table, joint, LensConfig(), SkipLog())
    common = int(material.asked[material.counts.argmax()])
    model = random_model(joint)
    head = head_of(model).weight
    with torch.no_grad():
        head[:] = torch.nn.functional.normalize(head, dim=1)
    fixed = head[common].detach().clone() * 10
    blocks_of(model)[1].register_forward_hook(lambda _, __, out: torch.zeros_like(out) + fixed)
    layer = summarize(look(model, joint, table), replicates=10)["layers"][2]
    assert layer["hit1"]["own"] == pytest.approx(material.counts.max() / material.counts.sum())
    assert layer["hit1"]["difference"] == pytest.approx(0, abs=1e-6)
    assert layer["hit1"]["local"] == pytest.approx(layer["hit1"]["own"], abs=1e-6)
    assert (layer["hit1"]["low"], layer["hit1"]["high"]) == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))


def test_the_picture_adds_up_to_the_score(joint: Vocabulary) -> None:
    """Words of few and of many frames weigh the same in both."""
    table = speech(utterances=10)
    found = look(random_model(joint), joint, table, config=LensConfig(bins=120))
    middle = slice(found.config.around, found.config.around + 120)
    assert (found.picture.count[middle] == len(table.words)).all()
    score = found.own[:, :, METRICS.index("hit10")].mean(axis=1)
    np.testing.assert_allclose((found.picture.sums[0, :, middle] / len(table.words)).mean(axis=1), score, atol=0.01)


def test_controls_equal_drawing(joint: Vocabulary) -> None:
    """Chance is the word's token at the times of all other words; local, of those of its utterance: by brute force."""
    table, model = speech(utterances=3, words=3), random_model(joint)
    found = look(model, joint, table)
    material = lay_out(table, joint, LensConfig(), SkipLog())
    codes = np.concatenate([spoken.codes for spoken in material.spoken])
    owner = np.repeat(np.arange(3), 3)
    hit, ever, logprob = (np.zeros((9, 9)) for _ in range(3))  # [place, word put there]
    for place in range(9):
        spoken = material.spoken[owner[place]]
        share = inside(spoken)[place % 3]

        def keep(layer: int, _: int, read: lens_reader.Read, place: int = place, share: np.ndarray = share) -> None:
            if layer == 3:
                hit[place] = share @ (read.ranks <= 10)[:, codes]
                ever[place] = (read.ranks <= 10)[share > 0].any(axis=0)[codes]
                logprob[place] = share @ read.logprobs[:, codes]

        lens_reader.run(model, joint, material.asked, [spoken], keep)
    other, neighbor = ~np.eye(9, dtype=bool), (owner[:, None] == owner) & ~np.eye(9, dtype=bool)
    for name, values in (("hit10", hit), ("ever10", ever), ("logprob", logprob)):
        m = METRICS.index(name)
        np.testing.assert_allclose(found.own[3, :, m], values.diagonal(), atol=1e-5)
        np.testing.assert_allclose(found.chance[3, :, m], np.where(other, values, 0).sum(0) / 8, atol=1e-5)
        np.testing.assert_allclose(found.local[3, :, m], np.where(neighbor, values, 0).sum(0) / 2, atol=1e-5)
    assert 0 < hit.mean() < 1


GRANITE = GraniteConfig(
    vocab_size=110,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    logits_scaling=8.0,
    embedding_multiplier=3.0,
    bos_token_id=0,
    eos_token_id=0,
)
PROJECTED = Size(
    name="projected", layers=2, dim=32, heads=2, kv_heads=2, ffn=64, family="opt", positions=64, own_row_dim=16,
    post_norm=True,
)  # fmt: skip


@pytest.mark.parametrize("name", [*TRAITS, "projected", "granite"])
def test_the_last_layer_reads_as_the_model_itself_speaks(joint: Vocabulary, name: str) -> None:
    """A forgotten final norm, projection, bias, cap or divisor of a family changes these numbers."""
    if name == "granite":
        with torch.random.fork_rng(devices=[]):
            model = AutoModelForCausalLM.from_config(GRANITE)
    else:
        model = new_model(PROJECTED if name == "projected" else get_size(f"{name}:0.02M"), 110, 64, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    model.eval()
    ids = torch.randint(0, 110, (1, 12), generator=generator)
    asked = np.array([2, 5, 40])
    states: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        with _visited(blocks_of(model), lambda layer, hidden: states.__setitem__(layer, hidden)):
            body_of(model)(input_ids=ids, use_cache=False)
        read = _Reader(model, joint, asked)(states[len(blocks_of(model))][0], 3)
        logits = model(ids).logits[0, :, : joint.text_size].clone()
        logits[:, [joint.eos_id, joint.unk_id]] = -torch.inf  # type: ignore[list-item]
        assert torch.equal(close_hidden(model, states[len(blocks_of(model))]), body_of(model)(ids).last_hidden_state)
    expected = logits.log_softmax(1).numpy()
    np.testing.assert_allclose(read.logprobs, expected[:, asked], atol=1e-4)
    np.testing.assert_array_equal(read.best[:, 0], expected.argmax(1))
    ranks = (expected[:, None, :] >= expected[:, asked, None]).sum(2)
    assert (np.abs(read.ranks - ranks) <= 1).mean() > 0.95
    assert sorted(states) == list(range(len(blocks_of(model)) + 1))


def test_a_tie_is_no_hit(joint: Vocabulary) -> None:
    model = random_model(joint)
    blocks_of(model)[0].register_forward_hook(lambda _, __, out: torch.zeros_like(out))
    found = look(model, joint, speech(utterances=4))
    assert found.own[1, :, METRICS.index("hit10")].max() == 0
    assert found.own[1, :, METRICS.index("logprob")] == pytest.approx(-math.log(joint.text_size - 2), abs=1e-5)
    assert joint.text_size < RANKS  # all ranks were told apart


@pytest.mark.parametrize("opening", ["plain", "speech"])
def test_batches_and_chunks_change_nothing(joint: Vocabulary, monkeypatch: pytest.MonkeyPatch, opening: Any) -> None:
    table, model = speech(utterances=7), random_model(joint)
    one = look(model, joint, table, config=LensConfig(opening=opening, batch_tokens=1))
    monkeypatch.setattr(lens_reader, "LOGIT_ELEMENTS", 3 * joint.text_size)
    all_at_once = look(model, joint, table, config=LensConfig(opening=opening, batch_tokens=10**6))
    np.testing.assert_allclose(one.own, all_at_once.own, atol=1e-4)
    np.testing.assert_allclose(one.picture.sums, all_at_once.picture.sums, atol=1e-3)
    again = look(model, joint, table, config=LensConfig(opening=opening, batch_tokens=1))
    np.testing.assert_array_equal(one.own, again.own)
    assert summarize(one, replicates=20) == summarize(again, replicates=20)


def test_openings_differ(joint: Vocabulary) -> None:
    material = [lay_out(speech(2), joint, LensConfig(opening=o), SkipLog()).spoken[0] for o in ("plain", "speech")]
    assert material[0].ids[:1].tolist() == [joint.eos_id]
    assert material[1].ids[:2].tolist() == [joint.eos_id, joint.SPEECH]
    assert material[0].tokens == material[1].tokens == len(material[0].ids) - 1


def spoken(starts: list[int], ends: list[int], codes: list[int], durations: list[int]) -> Spoken:
    return Spoken(
        row=0,
        ids=np.arange(len(durations) + 1),
        opening=1,
        token_of_frame=np.repeat(np.arange(len(durations)), durations),
        words=np.arange(len(starts)),
        codes=np.array(codes),
        starts=np.array(starts),
        ends=np.array(ends),
    )


def test_places_by_hand() -> None:
    # frames   0 0 | 1 1 1 2 | 3 3 4     one word on frames 2..5
    one = spoken([2], [6], [0], [2, 3, 1, 2, 1])
    assert inside(one).tolist() == [[0, 0.75, 0.25, 0, 0]]
    pairs = relative_pairs(one, around=3, bins=4)
    places = sorted(zip(pairs.bin.tolist(), pairs.token.tolist(), strict=True))
    assert places == [(2, 0), (3, 1), (4, 1), (5, 1), (6, 2), (7, 3), (8, 4)]
    # Two frames in four parts: each frame stands for two of them, so that short words count as much as long ones.
    short = relative_pairs(spoken([2], [4], [0], [2, 1, 1, 2]), around=1, bins=4)
    assert sorted(zip(short.bin.tolist(), short.token.tolist(), strict=True)) == [
        (0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3)]  # fmt: skip
    lags = lag_pairs(one, reach=3, end=False)
    assert sorted(zip((lags.bin - 3).tolist(), lags.token.tolist(), strict=True)) == [
        (-2, 0), (-1, 0), (0, 1), (1, 1), (2, 1), (3, 2)]  # fmt: skip
    lags = lag_pairs(one, reach=2, end=True)
    assert sorted(zip((lags.bin - 2).tolist(), lags.token.tolist(), strict=True)) == [
        (-2, 1), (-1, 2), (0, 3), (1, 3), (2, 4)]  # fmt: skip


def test_a_repetition_is_not_credited_to_the_word_before() -> None:
    # the same token on frames 1..2 and 7..8: frames up to 4 are nearer to the first, from 5 on to the second
    both = spoken([1, 7], [3, 9], [4, 4], [1] * 10)
    frames = np.arange(10)
    assert nearest(both, 0, frames).tolist() == [True] * 5 + [False] * 5
    assert nearest(both, 1, frames).tolist() == [False] * 5 + [True] * 5
    tie = spoken([1, 6], [3, 8], [4, 4], [1] * 10)  # frame 4 is two away from both
    assert not nearest(tie, 0, np.array([4]))[0]
    assert not nearest(tie, 1, np.array([4]))[0]
    different = spoken([1, 7], [3, 9], [4, 5], [1] * 10)
    assert nearest(different, 0, frames).all()
    assert both.first.tolist() == [True, False]


def test_subwords_of_units_sound_as_long_as_their_units() -> None:
    pieces = Subwords(kind="bpe", num_units=UNITS, pieces=((1, 2),), merges=((1, 2),))
    vocabulary = Vocabulary.joint(build_text_tokenizer([" ".join(WORDS)]), UNITS, subwords=pieces)
    builder = UnitTableBuilder(frame_rate_hz=50.0, num_units=UNITS)
    builder.add(
        id="u", speaker="s", split="test", text="waa wab", units=np.array([3, 1, 2, 5]),
        durations_frames=np.array([2, 3, 1, 2]), words=["waa", "wab"], word_frames=np.array([[0, 2], [2, 6]]),
    )  # fmt: skip
    found = lay_out(builder.build(), vocabulary, LensConfig(), SkipLog()).spoken[0]
    assert found.tokens == 3
    assert found.token_of_frame.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    assert inside(found)[1].tolist() == [0, 1, 0]


def test_no_word_gets_lost(joint: Vocabulary) -> None:
    builder = UnitTableBuilder(frame_rate_hz=50.0, num_units=UNITS)

    def add(id: str, words: list[str], frames: list[tuple[int, int]], units: int = 10) -> None:
        builder.add(
            id=id, speaker="s", split="test", text=" ".join(words), units=np.arange(units) % UNITS,
            durations_frames=np.ones(units, int), words=words, word_frames=np.array(frames).reshape(-1, 2),
        )  # fmt: skip

    add("good", ["waa", "wab", "never", "wac", "wad"], [(0, 3), (NO_TIME, NO_TIME), (3, 5), (5, 5), (5, 9)])
    add("long", ["waa"], [(0, 3)], units=300)
    add("bare", [], [])
    table, skips = builder.build(), SkipLog()
    model = random_model(joint)
    found = look(model, joint, table, skips=skips, heard=["waa", "wzz"])
    assert found.counts == {
        "taken": 2, "no time": 1, "no text token": 1, "shorter than a frame": 1,
        "in an utterance left out": 1}  # fmt: skip
    assert sum(found.counts.values()) == len(table.words)
    assert skips.ids == ["long", "bare"]
    assert "301 tokens, the model's context holds 256" in skips.skips[0].reason
    assert found.words.text == ["waa", "wad"]
    assert found.words.heard is not None
    assert found.words.heard.tolist() == [True, False]


def test_bad_input(joint: Vocabulary) -> None:
    table = speech(2)
    with pytest.raises(DataError, match="give an SLM with both, not textless"):
        lay_out(table, Vocabulary.textless(UNITS), LensConfig(), SkipLog())
    other = Vocabulary.joint(build_text_tokenizer(["a"]), 7)
    with pytest.raises(DataError, match="got 40 units, the model's vocabulary has 7"):
        lay_out(table, other, LensConfig(), SkipLog())
    with pytest.raises(DataError, match=r"two words with a time and a text token; got .'no text token': 16"):
        lay_out(table, Vocabulary.joint(build_text_tokenizer(["a"]), UNITS), LensConfig(), SkipLog())
    model = random_model(joint)
    with torch.no_grad():
        next(blocks_of(model)[1].parameters()).fill_(math.nan)
    with pytest.raises(DataError, match="layer 2: the model gives a number that is not finite"):
        look(model, joint, table)


def test_table_of_words(joint: Vocabulary, tmp_path: Path) -> None:
    table = speech(3)
    found = look(random_model(joint), joint, table)
    assert write_words(tmp_path / "lens.parquet", found) == len(table.words) * 5
    rows = pq.read_table(tmp_path / "lens.parquet").to_pylist()
    assert [row["layer"] for row in rows[:: len(table.words)]] == [0, 1, 2, 3, 4]
    second = rows[len(table.words) + 9]
    assert (second["id"], second["word"], second["text"]) == ("u1", 1, table.row_words(1)[1])
    assert second["chance_hit10"] == pytest.approx(found.chance[1, 9, 2])
    assert second["heard"] is None


def hand_made(own: list[float], owners: list[int]) -> Lens:
    """An embedding without hits and one layer with those given, chance 0."""
    hits = np.array([np.zeros(len(own)), own], np.float32)
    values = np.repeat(hits[:, :, None], len(METRICS), axis=2)
    count = len(own)
    words: Any = SimpleNamespace(
        utterance=np.array(owners), text=[""] * count, first=np.ones(count, bool), heard=None, token=np.zeros(count)
    )
    axis: Any = SimpleNamespace(sums=np.zeros((max(owners) + 1, 2, 3)), count=np.ones((max(owners) + 1, 3)))
    picture: Any = SimpleNamespace(sums=np.zeros((3, 2, 26)), count=np.ones(26))
    return Lens(
        config=LensConfig(), frame_rate_hz=50.0, rows=list(range(max(owners) + 1)), words=words, own=values,
        chance=values * 0, local=values * 0, around=values[:, :, :2], picture=picture,
        lags={"start": axis, "end": axis}, counts={}, frequencies=np.array([1.0]),
    )  # fmt: skip


def test_intervals_resample_utterances_not_words() -> None:
    """Ten copies of each word in its utterance say no more than one: the interval must not shrink."""
    values = np.random.default_rng(0).random(40)
    alone = summarize(hand_made(values.tolist(), list(range(40))))["layers"][1]["hit10"]
    copied = summarize(hand_made(np.repeat(values, 10).tolist(), np.repeat(np.arange(40), 10).tolist()))
    tenfold = copied["layers"][1]["hit10"]
    assert (tenfold["low"], tenfold["high"]) == (pytest.approx(alone["low"]), pytest.approx(alone["high"]))
    assert alone["high"] - alone["low"] == pytest.approx(3.92 * values.std() / math.sqrt(40), rel=0.1)
    assert _resamples(40, 5, 0).sum(axis=1).tolist() == [40] * 5
    beyond = summarize(hand_made(values.tolist(), list(range(40))))["best"]["beyond_embedding"]
    assert beyond == {"value": pytest.approx(values.mean()), "low": pytest.approx(alone["low"], abs=1e-6),
                      "high": pytest.approx(alone["high"], abs=1e-6)}  # fmt: skip
    single = summarize(hand_made([0.5, 1.0], [0, 0]))["layers"][1]["hit10"]
    assert (single["difference"], single["low"]) == (0.75, None)


def test_the_typical_utterance_is_the_median() -> None:
    scores = [0.1, 0.9, 0.5, 0.2, 0.8]
    found = hand_made([s for s in scores for _ in range(6)], [u for u in range(5) for _ in range(6)])
    assert typical_utterance(found, 1) == 2


def test_lens_needs_no_other_call(make_model: Callable[..., Any], vocabulary: Vocabulary) -> None:
    """The model is left as it was: no hook stays behind, its mode is restored."""
    model = make_model().train()
    builder = UnitTableBuilder(frame_rate_hz=50.0, num_units=10)
    builder.add(
        id="u", speaker="s", split="test", text="tom ran", units=np.array([1, 2, 3]),
        durations_frames=np.array([1, 1, 1]), words=["tom", "ran"], word_frames=np.array([[0, 1], [1, 3]]),
    )  # fmt: skip
    look(model, vocabulary, builder.build())
    assert model.training
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in blocks_of(model))

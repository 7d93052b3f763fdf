"""Catches a perplexity that depends on the batch, on an empty transcript, or on what the prompt was."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from speechscale.errors import DataError
from speechscale.evals.generation.perplexity import TextJudge, load_text_judge, perplexity
from speechscale.model.slm import save_model
from speechscale.tokens.vocabulary import Vocabulary

TEXTS = ["tom ran .", "ann won . he lost", "rome", "tom ran . ann won . he ran ."]


@pytest.fixture
def judge(vocabulary: Vocabulary, make_model: Callable[..., Any]) -> TextJudge:
    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [row.tolist() for row in vocabulary.encode_text(texts).rows()]

    return TextJudge(model=make_model(), encode=encode, start_id=vocabulary.eos_id, context=256, name="tiny")


def nats(judge: TextJudge, ids: list[int], first: int) -> float:
    """The slow way: one sequence, all logits, no padding."""
    with torch.inference_mode():
        logits = judge.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -sum(float(logits[at - 1, ids[at]]) for at in range(first, len(ids)))


def test_every_text_equals_a_plain_forward_at_any_batch(judge: TextJudge) -> None:
    found = perplexity(judge, TEXTS)
    one = perplexity(judge, TEXTS, batch_tokens=1)
    means = []
    for text, score, alone in zip(TEXTS, found.scores, one.scores, strict=True):
        ids = [judge.start_id or 0, *judge.encode([text])[0]]
        assert score.nll == pytest.approx(nats(judge, ids, 1), rel=1e-5)
        assert alone.nll == pytest.approx(score.nll, rel=1e-5)
        assert score.tokens == len(ids) - 1
        means.append(score.nll / score.tokens)
    assert found.perplexity.estimate == pytest.approx(math.exp(sum(means) / 4))
    total = sum(score.nll for score in found.scores)
    assert found.token_perplexity.estimate == pytest.approx(math.exp(total / found.tokens))
    assert found.perplexity.estimate != pytest.approx(found.token_perplexity.estimate or 0)


def test_spans_by_hand(judge: TextJudge) -> None:
    prompt, continuation = "tom ran .", "ann won"
    head, tail = (judge.encode([text])[0] for text in (prompt, continuation))
    ids = [judge.start_id or 0, *head, *tail]
    for span, first, sequence in (
        ("whole", 1, ids),
        ("continuation", 1 + len(head), ids),
        ("alone", 1, [judge.start_id or 0, *tail]),
    ):
        (score,) = perplexity(judge, [continuation], [prompt], span=span).scores  # type: ignore[arg-type]
        assert (score.tokens, score.nll) == (len(sequence) - first, pytest.approx(nats(judge, sequence, first)))


def test_without_a_start_token_the_first_token_is_not_scored(judge: TextJudge) -> None:
    bare = TextJudge(model=judge.model, encode=judge.encode, start_id=None, context=256, name="bare")
    (score, lone) = perplexity(bare, ["tom ran .", "rome"]).scores
    assert (score.tokens, score.nll) == (2, pytest.approx(nats(bare, bare.encode(["tom ran ."])[0], 1)))
    assert lone.problem == "no token to score"


def test_empty_and_too_long_texts_are_counted_and_never_nan(judge: TextJudge) -> None:
    found = perplexity(judge, ["", "tom ran", "  ", "tom " * 300])
    assert found.problems == {"empty": 2, "longer than the language model's context of 256 tokens": 1}
    assert found.perplexity.n == 1
    assert found.perplexity.estimate == pytest.approx(perplexity(judge, ["tom ran"]).perplexity.estimate)
    nothing = perplexity(judge, ["", ""])
    assert (nothing.perplexity.estimate, nothing.tokens) == (None, 0)
    assert "NaN" not in json.dumps(nothing.record())
    assert perplexity(judge, [""], ["tom ran"], span="continuation").problems == {"empty": 1}
    with pytest.raises(DataError, match="span 'all'"):
        perplexity(judge, ["x"], span="all")  # type: ignore[arg-type]


def test_our_text_lm_counts_words_it_does_not_know(
    vocabulary: Vocabulary, make_model: Callable[..., Any], tmp_path: Path
) -> None:
    text = vocabulary.text_subset()
    save_model(make_model(vocab_size=text.size), tmp_path)
    text.save(tmp_path)
    found = perplexity(load_text_judge(tmp_path), ["Tom zzz ran"])
    assert (found.tokens, found.unknown_tokens) == (3, 1)
    assert load_text_judge(tmp_path).stamp()["lm_sha256"]
    Vocabulary.textless(5).save(tmp_path)
    with pytest.raises(DataError, match="no text"):
        load_text_judge(tmp_path)


def test_a_stock_folder_keeps_its_capped_logits(tmp_path: Path) -> None:
    """Gemma 2 caps its logits: a score from hidden states and output matrix alone would be another."""
    words = {word: i for i, word in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "tom", "ran", "won"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    fast.save_pretrained(tmp_path)
    config = Gemma2Config(
        vocab_size=7, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, final_logit_softcapping=0.5, initializer_range=1.0,
        max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    judge = load_text_judge(tmp_path)
    assert judge.start_id == words["<bos>"]
    (score,) = perplexity(judge, ["tom ran"]).scores
    assert score.nll == pytest.approx(nats(judge, [2, 4, 5], 1), rel=1e-5)
    assert score.nll / 2 < math.log(7) + 1.0  # logits within +-0.5
    with pytest.raises(DataError, match="cannot be read"):
        load_text_judge(tmp_path / "nothing")

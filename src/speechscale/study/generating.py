"""Let a located model go on from prompts and measure what it says.

Enters: a `Located` model, a source of prompts, what to measure with. Leaves: OUT with samples.jsonl, audio/ and
results.json. The one decision worth knowing: every slow part (samples, transcripts, grades) is kept in OUT as it is
made, so the same command goes on after an interruption, and another metric can be added to samples that exist.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from speechscale.errors import DataError
from speechscale.evals.generation.auto_bleu import Orders
from speechscale.evals.generation.error_rates import has_words, require_jiwer
from speechscale.evals.generation.generating import generate_samples, recipe, vocoder_sha256
from speechscale.evals.generation.kept import Kept
from speechscale.evals.generation.listening import listen
from speechscale.evals.generation.llm_judge import KEY_ENV, MAX_TOKENS, TEMPLATE, ChatJudge
from speechscale.evals.generation.measures import Judged, write_generation
from speechscale.evals.generation.perplexity import Span, TextJudge, load_text_judge
from speechscale.evals.generation.prompts import PromptSource, open_prompts
from speechscale.evals.generation.samples import Sampling, Speaker
from speechscale.evals.generation.transcribe import Transcriber, open_transcriber
from speechscale.files import canonical_sha256
from speechscale.model.slm import load_model
from speechscale.progress import Watch
from speechscale.records import Utterance
from speechscale.speech.encoders.base import Runtime
from speechscale.speech.units import SpeechTokenizer
from speechscale.speech.vocoders import open_vocoder
from speechscale.study.devices import resolved
from speechscale.study.located import Located, locate


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What to generate and to measure.

    Args:
        count, split: see `prompts.open_prompts`. voice: of the vocoder.
        asr: "pocketsphinx", a transformers model, or "" for no texts. asr_texts: what pocketsphinx is counted on; None:
            the corpus' own texts. language: told to the recognizer.
        lm, lm_start: see `perplexity.load_text_judge`, or a run of a study; "" for no perplexity.
        judge_url, judge_model: a server that grades. judge_template: a file; None: ours. judge_max_tokens: of an
            answer. prices: per million tokens.
        resynthesis: error rates of the vocoder.
    """

    sampling: Sampling = field(default_factory=Sampling)
    count: int | None = None
    split: str | None = None
    voice: str | None = None
    asr: str = ""
    asr_texts: Path | None = None
    language: str | None = None
    span: Span = "whole"
    order: int = 2
    orders: Orders = "single"
    lm: str = ""
    lm_start: Literal["auto", "none"] = "auto"
    judge_url: str = ""
    judge_model: str = ""
    judge_template: Path | None = None
    judge_max_tokens: int = MAX_TOKENS
    prices: tuple[float, float] | None = None
    key_env: str = KEY_ENV
    allow_http: bool = False
    resynthesis: bool = False
    device: str = "auto"
    models: tuple[Path, ...] = ()


def run_generation(
    located: Located,
    prompts: Path,
    out: Path,
    asked: Asked,
    *,
    watch_of: Callable[[str], AbstractContextManager[Watch]],
) -> dict[str, Any]:
    """Generate, recognize, measure; return the content of OUT/results.json.

    Raises:
        DataError: something needed is missing, or OUT holds samples of another recipe. MissingExtra: an optional
            package.
    """
    source = open_prompts(prompts, count=asked.count, seed=asked.sampling.seed, split=asked.split)
    speaker = _speaker(located, asked)
    # What can fail is opened before anything long begins.
    transcriber = _transcriber(source, out, asked)
    judge = _judge(out, asked)
    if asked.resynthesis:
        _check_resynthesis(speaker, source, transcriber)
    if transcriber is None and asked.sampling.direction == "st" and not all(map(_timed, source.utterances)):
        raise DataError(
            "the words of these prompts are not known; name a recognizer with --asr, or give a corpus with word times"
        )
    if transcriber is None and asked.sampling.direction != "st" and (asked.lm or judge is not None):
        raise DataError("the perplexity and the judge read texts; name a recognizer with --asr")
    lm = _text_judge(asked) if asked.lm else None
    with watch_of("generated") as watch:
        samples, skips = generate_samples(speaker, source, asked.sampling, out, watch=watch)
    heard = None
    if transcriber is not None or asked.sampling.direction == "st":
        with watch_of("recognized") as watch:
            heard = listen(
                samples,
                source,
                out,
                transcriber,
                direction=asked.sampling.direction,
                span=asked.span,
                parts=judge is not None,
                resynthesis=speaker if asked.resynthesis else None,
                watch=watch,
            )
    how = Judged(
        direction=asked.sampling.direction,
        span=asked.span,
        order=asked.order,
        orders=asked.orders,
        lm=lm,
        judge=judge,
        resynthesis=asked.resynthesis,
        language=asked.language or "en",
        seed=asked.sampling.seed,
    )
    with watch_of("graded") as watch:
        return write_generation(
            out,
            samples,
            heard,
            skips,
            how,
            recipe=recipe(speaker, source, asked.sampling),
            asr=None if transcriber is None else transcriber.stamp(),
            watch=watch,
        )


def _text_judge(asked: Asked) -> TextJudge:
    folder = Path(asked.lm)
    ours = folder.is_dir() and not (folder / "config.json").is_file()  # a run of a study
    found = locate(folder) if ours else None
    judge = load_text_judge(found.folder if found else asked.lm, start=asked.lm_start, device=resolved(asked.device))
    return replace(judge, name=found.name) if found else judge


def _timed(utterance: Utterance) -> bool:
    return any(word.end_s is not None for word in utterance.words)


def _check_resynthesis(speaker: Speaker, source: PromptSource, transcriber: Transcriber | None) -> None:
    if speaker.vocoder is None or transcriber is None:
        raise DataError("resynthesis needs a vocoder and a recognizer; give --vocoder DIR and --asr")
    if source.loader is None or not any(has_words(utterance.text) for utterance in source.utterances):
        raise DataError("resynthesis needs recordings with known words; give a corpus as --prompts")
    if speaker.tokenizer is None or speaker.tokenizer.oracle:
        raise DataError("resynthesis needs units of recordings; give --tokenizer DIR, no phones of a speech engine")
    require_jiwer()


def _speaker(located: Located, asked: Asked) -> Speaker:
    tokenizer = None
    if located.speech_tokenizer is not None:
        runtime = Runtime(device=asked.device, model_folders=asked.models)
        tokenizer = SpeechTokenizer.load(located.speech_tokenizer, runtime=runtime)
    vocoder = None
    if located.vocoder is not None and asked.sampling.direction != "st":
        vocoder = open_vocoder(located.vocoder)
    return Speaker(
        model=load_model(located.folder).to(resolved(asked.device)),
        vocabulary=located.load_vocabulary(),
        tokenizer=tokenizer,
        vocoder=vocoder,
        voice=asked.voice,
        vocoder_sha256="" if located.vocoder is None or vocoder is None else vocoder_sha256(located.vocoder),
        name=located.name,
    )


def _transcriber(source: PromptSource, out: Path, asked: Asked) -> Transcriber | None:
    if not asked.asr:
        return None
    texts: list[str] | None = None
    if asked.asr_texts is not None:
        texts = _lines(asked.asr_texts)
    elif source.texts:
        texts = list(source.texts)
    return open_transcriber(
        asked.asr,
        folder=out / "recognizer" / canonical_sha256({"texts": texts})[:16],  # other texts, another language model
        texts=texts,
        device=resolved(asked.device),
        language=asked.language,
    )


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"texts {path}: not readable ({error}); give a text file with one sentence per line") from error


def _judge(out: Path, asked: Asked) -> ChatJudge | None:
    if not asked.judge_url:
        return None
    template = TEMPLATE
    if asked.judge_template is not None:
        try:
            template = asked.judge_template.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"template {asked.judge_template}: not readable ({error}); give a text file") from error
    return ChatJudge(
        base=asked.judge_url,
        model=asked.judge_model,
        kept=Kept(out / "judge.jsonl"),
        template=template,
        prices=asked.prices,
        key_env=asked.key_env,
        allow_http=asked.allow_http,
        max_tokens=asked.judge_max_tokens,
    )

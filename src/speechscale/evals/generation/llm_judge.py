"""A language model as judge of continuations, through any server with OpenAI's chat interface.

Enters: prompts and continuations as text. Leaves: a grade from 1 to 5 for each, or a reason why there is none; what it
cost. The one decision worth knowing: a grade belongs to the item it was asked for: a failed call leaves that one item
without, and an answer is only read where it is one whole number in the scale; everything else is junk with a reason.

Every answer is kept by the hash of address, model, prompt and texts: nothing is paid twice and a stopped run goes on.
Source: GPT-4o as judge on a scale of 1 to 5: Align-SLM (Lin et al. 2024, arXiv 2411.01834), SIMS; the words of the
prompt are ours. The interface: the public OpenAI API reference, "Create chat completion".
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from speechscale.errors import DataError
from speechscale.evals.generation.estimates import REPLICATES, Estimate, mean_of
from speechscale.evals.generation.kept import Kept
from speechscale.files import canonical_sha256
from speechscale.progress import Progress, Watch
from speechscale.voices.http_client import HttpClient, ItemRefused
from speechscale.voices.segments import EngineDown

TEMPLATE = """\
You grade how well a speaker's words go on. You see the beginning and what was said next, both written down by a \
speech recognizer, so ignore spelling, punctuation and capitals, and do not mind that the end may be cut off.

Beginning: {prompt}
Continuation: {continuation}

Grade the continuation with one whole number:
1 - not language, or nothing to do with the beginning
2 - words and phrases, but they hardly make sense together or with the beginning
3 - partly makes sense: some of it follows from the beginning, some does not
4 - makes sense and follows from the beginning, with small flaws in grammar or story
5 - fluent, and a person could have gone on like this

Answer with the grade alone, in this form: \\boxed{grade}
"""
LOWEST, HIGHEST = 1, 5
MAX_TOKENS = 64
KEY_ENV = "SPEECHSCALE_JUDGE_KEY"
MAX_BYTES = 4 << 20
FAILURES_IN_A_ROW = 8
"""After as many the server is taken to be down and no more is asked."""
BOXED = re.compile(r"\\boxed\s*\{([^{}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """One item: its grade, or `problem`.

    Args:
        answer: the judge's words. by: the model that the server says it was. asked: whether it was asked in this run.
    """

    id: str
    grade: int | None
    problem: str = ""
    answer: str = ""
    by: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    asked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Grades of a set of continuations.

    Args:
        mean: over the graded ones. grades: grade -> how many. problems: reason -> how many are without a grade.
        prompt_tokens, completion_tokens: of all answers, kept ones too. cost, cost_now: of all answers, and of those
            asked for in this run; None where no prices were given.
        without_usage: answers whose server named no token counts.
    """

    mean: Estimate
    grades: dict[int, int]
    problems: dict[str, int]
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    cost_now: float | None
    asked: int
    without_usage: int
    items: tuple[Graded, ...]
    stamp: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """As plain JSON, without the items and without what one run alone asked for (`cost_now`, `asked`)."""
        return {
            **self.mean.record(),
            "grades": {str(grade): count for grade, count in self.grades.items()},
            "without_grade": self.problems,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "answers_without_token_counts": self.without_usage,
            "cost": self.cost,
            "judge": self.stamp,
        }


def read_grade(answer: str) -> int:
    """The grade in a judge's answer: one whole number from 1 to 5, in \\boxed{} or standing alone.

    Example: "so \\boxed{ 4 }" -> 4; "4" -> 4; refused: "3.5", "\\boxed{4/5}", "99", "I give it 4", two unlike boxes

    Raises:
        DataError: anything else; the message says what.
    """
    found = {box.strip() for box in BOXED.findall(answer)} or {answer.strip()}
    if len(found) > 1:
        raise DataError(f"names several grades: {', '.join(sorted(found))[:40]}")
    (text,) = found
    if not re.fullmatch(r"\d{1,3}", text, re.ASCII):
        raise DataError("is no whole number in \\boxed{} nor standing alone")
    grade = int(text)
    if not LOWEST <= grade <= HIGHEST:
        raise DataError(f"is {grade}, outside {LOWEST} to {HIGHEST}")
    return grade


class ChatJudge:
    """Asks a server for grades.

    Args:
        base: the server, e.g. "https://api.openai.com" or "http://127.0.0.1:8000". model: as the server calls it.
        kept: where answers are kept.
        template: text with {prompt} and {continuation}.
        prices: for a million prompt and completion tokens, in any currency; None: cost is not worked out.
        key_env: environment variable with the key.

    Raises:
        DataError: an address that may not be used, or a template without its two places.
    """

    def __init__(
        self,
        *,
        base: str,
        model: str,
        kept: Kept,
        template: str = TEMPLATE,
        prices: tuple[float, float] | None = None,
        key_env: str = KEY_ENV,
        allow_http: bool = False,
        timeout_s: float = 60.0,
        concurrency: int = 4,
        retries: int = 5,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        missing = [place for place in ("{prompt}", "{continuation}") if place not in template]
        if missing:
            raise DataError(f"judge: the template has no {missing[0]}; write it where that text belongs")
        if not model.strip():
            raise DataError("judge: needs the name of a model; give --judge-model")
        self.model, self.kept, self.template, self.prices = model, kept, template, prices
        self.concurrency, self.max_tokens = max(1, concurrency), max_tokens
        self._failures, self._lock = 0, threading.Lock()
        self._client = HttpClient(
            base=base,
            path="chat/completions",
            what="judge",
            item="text",
            accept="application/json",
            key_env=key_env,
            allow_http=allow_http,
            timeout_s=timeout_s,
            retries=retries,
            max_bytes=MAX_BYTES,
            refused="the address, the model and the key",
        )

    def stamp(self) -> dict[str, Any]:
        """What decides a grade, as plain JSON; the template in full."""
        return {
            "server": self._client.host,
            "model": self.model,
            "template": self.template,
            "template_sha256": hashlib.sha256(self.template.encode()).hexdigest(),
            "temperature": 0,
            "max_tokens": self.max_tokens,
            "scale": [LOWEST, HIGHEST],
            "prices_per_million_tokens": None if self.prices is None else list(self.prices),
        }

    def grade(
        self,
        ids: Sequence[str],
        prompts: Sequence[str],
        continuations: Sequence[str],
        *,
        replicates: int = REPLICATES,
        seed: int = 0,
        watch: Watch | None = None,
    ) -> Verdict:
        """Grade continuations of prompts, several at once; what was answered before is not asked again.

        Raises:
            EngineDown: the server refuses altogether; what was answered so far is kept.
        """
        if not len(ids) == len(prompts) == len(continuations):
            raise DataError(f"judge: {len(ids)} ids, {len(prompts)} prompts, {len(continuations)} continuations")
        self._failures = 0
        started = time.monotonic()
        items: list[Graded] = []
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="judge")
        try:
            for item in pool.map(self._grade, ids, prompts, continuations):
                items.append(item)
                if watch is not None:
                    wall_s = time.monotonic() - started
                    watch(Progress(items_done=len(items), items_total=len(ids), wall_s=wall_s))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        return self._verdict(items, replicates, seed)

    def _grade(self, id: str, prompt: str, continuation: str) -> Graded:
        if not continuation.strip():
            return Graded(id=id, grade=None, problem="empty")
        places = {"{prompt}": prompt.strip(), "{continuation}": continuation.strip()}
        # In one pass, so that a text which holds "{continuation}" stays what it is.
        said = re.sub(r"\{prompt\}|\{continuation\}", lambda match: places[match[0]], self.template)
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": said}],
            "temperature": 0,
            "max_tokens": self.max_tokens,
        }
        key = canonical_sha256({"url": self._client.url, "body": body})
        answer = self.kept.get(key)
        asked = answer is None
        if answer is None:
            if self._failures >= FAILURES_IN_A_ROW:
                return Graded(id=id, grade=None, problem="not asked: the judge does not answer any more")
            try:
                answer = _read_answer(self._client.post(body))
            except EngineDown:
                raise
            except ItemRefused as error:
                with self._lock:
                    self._failures = 0
                return Graded(id=id, grade=None, problem=str(error), asked=True)
            except DataError as error:
                with self._lock:
                    self._failures += 1
                return Graded(id=id, grade=None, problem=str(error), asked=True)
            with self._lock:
                self._failures = 0
            self.kept.put(key, answer)
        return _graded(id, answer, asked)

    def _verdict(self, items: Sequence[Graded], replicates: int, seed: int) -> Verdict:
        grades = [item.grade for item in items if item.grade is not None]
        problems = Counter(item.problem for item in items if item.grade is None)
        assert len(grades) + sum(problems.values()) == len(items), "graded + not graded = all"
        answered = [item for item in items if item.answer]
        return Verdict(
            mean=mean_of([float(grade) for grade in grades], replicates=replicates, seed=seed),
            grades={grade: grades.count(grade) for grade in range(LOWEST, HIGHEST + 1)},
            problems=dict(sorted(problems.items())),
            prompt_tokens=sum(item.prompt_tokens for item in items),
            completion_tokens=sum(item.completion_tokens for item in items),
            cost=self._cost(items),
            cost_now=self._cost([item for item in items if item.asked]),
            asked=sum(item.asked for item in items),
            without_usage=sum(item.prompt_tokens == 0 for item in answered),
            items=tuple(items),
            stamp={**self.stamp(), "answered_by": sorted({item.by for item in answered})},
        )

    def _cost(self, items: Sequence[Graded]) -> float | None:
        if self.prices is None:
            return None
        prompt, completion = self.prices
        return sum(item.prompt_tokens * prompt + item.completion_tokens * completion for item in items) / 1e6


def _read_answer(data: bytes) -> dict[str, Any]:
    """The words and token counts of a chat completion. Raises DataError for anything else."""
    try:
        said = json.loads(data)
        choice = said["choices"][0]
        text = choice["message"]["content"]
        usage = said.get("usage") or {}
        counts = {name: int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise DataError("the judge's answer is no chat completion; check the address") from error
    if not isinstance(text, str) or not text.strip():
        raise ItemRefused(
            "the judge's answer has no text; choose a model that answers at once, or raise --judge-max-tokens"
        )
    return {
        "answer": text,
        "by": str(said.get("model") or ""),
        "cut": choice.get("finish_reason") == "length",
        **counts,
    }


def _graded(id: str, answer: dict[str, Any], asked: bool) -> Graded:
    counts = {name: answer[name] for name in ("prompt_tokens", "completion_tokens", "by")}
    try:
        grade, problem = read_grade(answer["answer"]), ""
    except DataError as error:
        cut = " and was cut off; raise --judge-max-tokens" if answer["cut"] else ""
        grade, problem = None, f"the answer {error}{cut}"
    return Graded(id=id, grade=grade, problem=problem, answer=answer["answer"], asked=asked, **counts)

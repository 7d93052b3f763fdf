"""lm-evaluation-harness in process: its tasks, on a model that is in memory.

Enters: names of tasks, a model, the text tokenizer of a vocabulary. Leaves: the documents with the values of every
metric. The one decision worth knowing: the tokenizer is made of the vocabulary, never looked for beside the model, so
that two models that share a text block read the same ids.
"""

from __future__ import annotations

import difflib
import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from speechscale.errors import DataError, MissingExtra
from speechscale.tokens.vocabulary import Vocabulary

Start = Literal["tokenizer", "eos"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tasks:
    """Tasks of lm-eval with their data. tasks: by name, leaves only. groups: of those, by name."""

    tasks: Mapping[str, Any]
    groups: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What lm-eval found.

    Args:
        samples: per task its documents, each with "doc_hash", "filter" and a value per name in "metrics".
        results: per task "METRIC,FILTER" -> value.
        truncated: sequences that lm-eval cut on the left to fit `max_length`.
    """

    samples: Mapping[str, Sequence[Mapping[str, Any]]]
    results: Mapping[str, Mapping[str, Any]]
    truncated: int


def require_harness() -> Any:
    """The package lm_eval. Raises MissingExtra."""
    try:
        import lm_eval
    except ImportError as error:
        raise MissingExtra("text retention", "lm-eval") from error
    return lm_eval


def load_tasks(names: Sequence[str], include_path: Path | None = None) -> Tasks:
    """Find tasks and read their data; released ones fetch theirs from the Hugging Face hub.

    Args:
        include_path: folder with YAML files of own tasks; what is asked for and not there is sought among lm-eval's.

    Raises:
        DataError: an unknown task, data that cannot be had, two of the same task, no such folder.
        MissingExtra: lm-eval is not installed.
    """
    require_harness()
    from lm_eval.tasks import TaskManager

    if include_path is not None and not include_path.is_dir():
        raise DataError(f"{include_path}: no such folder; give one with the YAML files of your tasks")
    if not names:
        raise DataError("no task was named; give at least one")
    own = str(include_path) if include_path else None
    manager = TaskManager(include_path=own, include_defaults=False)
    if any(name not in manager.all_tasks for name in names):
        manager = TaskManager(include_path=own)  # reads 14,000 files
    tasks: dict[str, Any] = {}
    groups: dict[str, Any] = {}
    for name in names:
        if name not in manager.all_tasks:
            where = f" or in {include_path}" if include_path else ""
            near = difflib.get_close_matches(name, manager.all_tasks, n=1)
            remedy = f"did you mean '{near[0]}'?" if near else "`lm-eval ls tasks` lists them"
            raise DataError(f"task '{name}' is not in lm-eval{where}; {remedy}")
        try:
            with undisturbed():
                loaded = manager.load([name])
        except Exception as error:  # datasets, the hub's client, yaml and jinja each raise their own
            raise DataError(
                f"task '{name}': lm-eval cannot load it ({_first_line(error)}). A released task takes its data from "
                "the Hugging Face hub: run it where there is network, or fill the cache there (HF_HOME) and bring it "
                "here; a task of your own lies below --include-path with its data"
            ) from error
        if twice := sorted(tasks.keys() & loaded["tasks"].keys()):
            raise DataError(f"task '{name}': '{twice[0]}' is among the tasks already; name it once")
        tasks |= loaded["tasks"]
        groups |= loaded["groups"]
    return Tasks(tasks=tasks, groups=groups)


def text_tokenizer(vocabulary: Vocabulary, start: Start = "tokenizer") -> Any:
    """A transformers tokenizer of the text block alone: a text that holds "<Un1>" is text, as in a TextLM.

    Args:
        start: what stands in front of a text: what the tokenizer itself puts there (as with stock lm-eval), or "eos",
            which opens documents in training here.

    Raises:
        DataError: no text in this vocabulary.
    """
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    if not vocabulary.has_text:
        raise DataError("a textless model has no text side; text retention needs a vocabulary with text")
    if start not in get_args(Start):
        raise DataError(f"start '{start}'; allowed: {', '.join(get_args(Start))}")
    eos = vocabulary.spelled[vocabulary.eos_id]
    tokenizer = Tokenizer.from_str(vocabulary.text_json)
    if start == "eos":
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[eos, "$A"], special_tokens=[(eos, vocabulary.eos_id)]
        )
    opened, bare = (tokenizer.encode("a", add_special_tokens=special).ids for special in (True, False))
    bos = tokenizer.id_to_token(opened[0]) if opened[: len(bare)] != bare else eos
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, clean_up_tokenization_spaces=False
    )


def run_tasks(
    model: Any,
    tokenizer: Any,
    tasks: Tasks,
    *,
    limit: int | None = None,
    batch_size: int = 8,
    max_length: int | None = None,
    seed: int = 0,
) -> Ran:
    """Run tasks on a model, as `lm_eval run` would; the random state of this process is left as it was.

    Args:
        limit: documents of each task, from the first. max_length: tokens, None: the model's context.
        seed: of everything random: few-shot examples, generation.
    """
    harness = require_harness()
    for task in tasks.tasks.values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=seed)
    # Not `simple_evaluate`: it lists packages and hardware of this machine, which takes longer than small tasks.
    with undisturbed(seed):
        lm = _counting(model, tokenizer, batch_size=batch_size, max_length=max_length)
        loaded = {"tasks": dict(tasks.tasks), "groups": dict(tasks.groups), "group_map": {}}
        found = harness.evaluate(lm, loaded, limit=limit, bootstrap_iters=0, log_samples=True)
    return Ran(samples=found["samples"], results=found["results"], truncated=lm.truncated)


@contextmanager
def undisturbed(seed: int = 0) -> Iterator[None]:
    """Seed the global random states, which lm-eval and its tasks use, and put them back afterwards.

    Its warnings stay out: they speak of options of its command line, and what they say of cut texts is counted here.
    """
    python, numbers = random.getstate(), np.random.get_state()  # noqa: NPY002
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with torch.random.fork_rng():
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            torch.manual_seed(seed)
            yield
    finally:
        log.setLevel(level)
        random.setstate(python)
        np.random.set_state(numbers)  # noqa: NPY002


def _counting(model: Any, tokenizer: Any, **settings: Any) -> Any:
    """lm-eval's model of transformers, which also counts what it cuts, and says what it cannot score."""
    from lm_eval.models.huggingface import HFLM

    class Counting(HFLM):  # type: ignore[misc,unused-ignore]
        truncated = 0

        def _loglikelihood_tokens(self, requests: Any, **options: Any) -> Any:
            for texts, context, rest in requests:
                if not 0 < len(rest) <= self.max_length:
                    raise DataError(
                        f"'{_shown(texts)}': {len(rest)} tokens to score, allowed 1 to {self.max_length}; give a "
                        "greater maximum length, or leave the task out"
                    )
                self.truncated += len(context) + len(rest) > self.max_length + 1
            return super()._loglikelihood_tokens(requests, **options)

    # Its cache gives wrong log-likelihoods where two requests read the same tokens and score different numbers of them.
    return Counting(pretrained=model, tokenizer=tokenizer, backend="causal", logits_cache=False, **settings)


def _shown(texts: tuple[str, str] | None) -> str:
    """The end of a request's text; windows of a long document have none."""
    return "".join(texts or ("a window of a document",))[-60:]


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"

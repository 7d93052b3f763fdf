"""The file of one training: which data, which model, which recipe.

Enters: a TOML file. Leaves: `TrainJob`, checked; nothing in it depends on the machine.
The one decision worth knowing: a job may be written in batches of tokens and a budget of FLOPs; both become rows and
tokens here, once the vocabulary and the shape are known, and the record holds what they became.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from speechscale.errors import DataError
from speechscale.model.flops import Convention, flops_per_token, tokens_for_budget
from speechscale.model.sizes import Size
from speechscale.settings import Section, override, read_toml, validate
from speechscale.train.adapt import Trains
from speechscale.train.config import TrainConfig
from speechscale.train.preference_data import PairRules
from speechscale.train.preference_loss import PreferenceConfig

Stream = Literal["speech", "text", "interleaved"]
Direction = Literal["ss", "st", "ts", "tt"]
PROBE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Source(Section):
    """Rows of one stream: of a token store, or packed before (`tokens pack`)."""

    store: str = Field("", description="folder of a token store")
    rows: str = Field("", description="folder of packed rows, instead of a store")
    stream: Stream = "interleaved"
    share: float = Field(gt=0, description="of the tokens; shares are normalized")
    pack: Literal["best_fit", "stream"] = "best_fit"
    max_epochs: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if bool(self.store) == bool(self.rows):
            raise ValueError("give either store or rows")
        return self


class Data(Section):
    """What is read."""

    vocabulary: str = Field("", description="vocabulary folder; found beside the first store when empty")
    seed: int = Field(0, ge=0)
    interleave: dict[str, Any] = Field(default_factory=dict, description="as [interleave] of a study")
    sources: dict[str, Source] = Field(min_length=1)


class ValidationSet(Section):
    """Documents that are never trained on; the one called "select" chooses the best checkpoint."""

    store: str
    stream: Stream = "speech"
    documents: int | None = Field(None, ge=1, description="the first so many; all when absent")


class Model(Section):
    """What is trained."""

    start: Literal["warm", "textless-warm", "scratch", "slm"] = Field(
        description="a TextLM with rows added; its body with units only (TWIST); random; an SLM as it is"
    )
    path: str = Field("", description="folder or hub name of the TextLM or SLM")
    revision: str = ""
    size: str = Field("", description="shape from scratch, e.g. 20M, qwen2.5-0.5B, opt:1M")
    new_rows: str = Field("calibrated", description="policy for the rows of new ids (docs/model.md)")
    unit_tokenizer: str = Field("", description="folder of the speech tokenizer, for new_rows = 'centroid'")
    markers_like: dict[Literal["speech", "text"], str] = Field(
        default_factory=dict, description="text token whose row a marker starts with"
    )
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Model:
        scratch = self.start == "scratch"
        if scratch and (not self.size or self.path):
            raise ValueError("start 'scratch' needs size, and no path")
        if not scratch and (not self.path or self.size):
            raise ValueError(f"start '{self.start}' needs path, and no size")
        if (self.new_rows == "centroid") != bool(self.unit_tokenizer):
            raise ValueError("new_rows 'centroid' and unit_tokenizer belong together: give both or neither")
        return self


class Adapt(Section):
    """Which parameters learn (docs/train.md)."""

    trains: Trains = "all"
    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)


class Recipe(Section):
    """Budget, batch, optimizer; the rest as in `TrainConfig`."""

    tokens: int | None = Field(None, ge=1, description="predicted tokens")
    flops: float | None = Field(None, gt=0, description="instead of tokens, under flops_convention")
    flops_convention: Convention = "exact"
    context: int = Field(ge=8)
    batch_rows: int | None = Field(None, ge=1)
    batch_tokens: int | None = Field(None, ge=1, description="instead of batch_rows; a multiple of context")
    learning_rate: float = Field(gt=0)
    final_lr_fraction: float = Field(0.1, ge=0, le=1)
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"
    decay_fraction: float = Field(0.2, ge=0, le=1)
    warmup_tokens: int | None = Field(None, ge=0)
    warmup_fraction: float = Field(0.01, ge=0, le=1)
    rows_first_tokens: int = Field(0, ge=0)
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    clip_norm: float = Field(1.0, gt=0)
    z_loss: float = Field(0.0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checks: int = Field(8, ge=1)
    select_on: Literal["speech", "text"] = "speech"

    @model_validator(mode="after")
    def _one_budget_one_batch(self) -> Recipe:
        if (self.tokens is None) == (self.flops is None):
            raise ValueError("give either tokens or flops")
        if (self.batch_rows is None) == (self.batch_tokens is None):
            raise ValueError("give either batch_rows or batch_tokens")
        if self.batch_tokens is not None and self.batch_tokens % self.context:
            below = max(1, self.batch_tokens // self.context) * self.context
            raise ValueError(
                f"batch_tokens = {self.batch_tokens} is no multiple of context = {self.context}; take {below} or "
                f"{below + self.context}"
            )
        return self

    def config(self, size: Size, vocab: int) -> TrainConfig:
        """The recipe of the loop, for a model of this shape.

        Raises:
            DataError: a budget that buys no token, a warm-up longer than the budget.
        """
        rows = self.batch_rows or (self.batch_tokens or 0) // self.context
        tokens = self.tokens or tokens_for_budget(
            self.flops or 0, flops_per_token(size, vocab, self.context).of(self.flops_convention)
        )
        own = self.model_dump(exclude={"tokens", "flops", "flops_convention", "batch_rows", "batch_tokens"})
        return TrainConfig(tokens=tokens, batch_rows=rows, **own)


class Preference(Section):
    """Preference tuning (DPO) instead of training on rows (docs/preference.md)."""

    pairs: str = Field(description="JSON lines of prompt, chosen, rejected")
    validation: str = Field("", description="held-out pairs, likewise")
    prompt_as: Literal["given", "text"] = "given"
    completion_as: Literal["given", "text"] = "given"
    max_auto_bleu: float | None = Field(None, ge=0, le=1)
    auto_bleu_of: Literal["text", "tokens"] = "text"
    auto_bleu_n: int = Field(2, ge=1)
    epochs: int = Field(1, ge=1)
    batch_pairs: int = Field(ge=1)
    context: int = Field(ge=8)
    learning_rate: float = Field(gt=0)
    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    length_normalized: bool = False
    sft_weight: float = Field(0.0, ge=0)
    score_end: bool = True
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"
    warmup_fraction: float = Field(0.1, ge=0, le=1)
    final_lr_fraction: float = Field(0.0, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checks: int = Field(4, ge=1)
    seed: int = Field(0, ge=0)

    @property
    def rules(self) -> PairRules:
        """How lines become pairs."""
        names = ("context", "prompt_as", "completion_as", "max_auto_bleu", "auto_bleu_of", "auto_bleu_n")
        return PairRules(**{name: getattr(self, name) for name in names})

    @property
    def config(self) -> PreferenceConfig:
        """The recipe of the tuning."""
        names = {field.name for field in fields(PreferenceConfig)}
        return PreferenceConfig(**{name: value for name, value in self.model_dump().items() if name in names})


class ProbeTask(Section):
    """Choices scored along the training (docs/probing_runs.md); nothing in it changes what is trained."""

    benchmark: str = Field(description="folder that eval prepare wrote")
    speech_tokenizer: str = Field("", description="folder of the speech tokenizer; text alone needs none")
    directions: tuple[Direction, ...] = Field((), description="all that exist when empty")
    sets: tuple[str, ...] = Field((), description="all when empty")
    items: int = Field(200, ge=2, description="of each set, in whole pairs")
    protocol: str = Field("speechscale", description="docs/evals.md")
    precision: Literal["fp32", "bf16"] = "fp32"
    every: int = Field(1, ge=1, description="checks; the last one always counts")
    seed: int = Field(0, ge=0, description="of the draw of the items")


class TrainJob(Section):
    """One training."""

    data: Data | None = None
    validation: dict[str, ValidationSet] = Field(default_factory=dict)
    model: Model
    adapt: Adapt = Adapt.model_validate({})
    train: Recipe | None = None
    preference: Preference | None = None
    probes: dict[str, ProbeTask] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _probed(self) -> TrainJob:
        if self.probes and self.preference is not None:
            raise ValueError("probes go with [train]; score a tuned model with speechscale eval run")
        for name in self.probes:
            if not PROBE_NAME.fullmatch(name):
                raise ValueError(f"probes.{name}: use letters, digits, '.', '_' and '-' (it names curves)")
        return self

    @model_validator(mode="after")
    def _one_kind(self) -> TrainJob:
        rows = self.data is not None and self.train is not None
        if rows == (self.preference is not None):
            raise ValueError("give [data] and [train], or [preference]")
        if self.preference is not None and self.model.start != "slm":
            raise ValueError("preference tuning starts from an SLM: model.start = 'slm'")
        return self


def load_job(path: Path, overrides: Mapping[str, Any] | None = None) -> TrainJob:
    """Read a job file; `overrides` maps dotted keys to values.

    Paths in it count from where the command is run, as everywhere in speechscale.

    Raises:
        DataError: no such file, broken TOML, unknown or mistyped key, a value that is not allowed.
    """
    data = read_toml(Path(path))
    for key, value in (overrides or {}).items():
        override(data, key, value)
    return validate(TrainJob, data, str(path))


def need(job: TrainJob) -> tuple[Data, Recipe]:
    """Data and recipe of a training on rows."""
    if job.data is None or job.train is None:
        raise DataError("this job tunes on preferences; it has no [data] and [train]")
    return job.data, job.train

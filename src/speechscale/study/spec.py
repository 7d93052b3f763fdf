"""The sections of a study file: frozen, strictly validated.

Enters: plain tables. Leaves: `Study`, whose parts are complete; nothing downstream knows a default.
The one decision worth knowing: a field is here if it can change a number; jobs, paths of outputs and devices are not.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from speechscale.model.families import Family
from speechscale.model.flops import Convention
from speechscale.settings import Section
from speechscale.study.corpora_spec import Corpus
from speechscale.tokens.interleave_config import InterleaveConfig, Knot

Stream = Literal["text", "speech", "interleaved"]
Axis = Literal["budgets_flops", "tokens_per_param", "tokens"]
Direction = Literal["ss", "st", "ts", "tt"]
SLUG = re.compile(r"[a-z0-9][a-z0-9._-]*")


class StudyHeader(Section):
    """What is asked, and by which paper."""

    name: str
    question: str
    seed: int = Field(0, ge=0)
    paper: str = ""
    cost: str = ""
    expect: str = ""

    @field_validator("name")
    @classmethod
    def _slug(cls, name: str) -> str:
        if not SLUG.fullmatch(name):
            raise ValueError("use lower-case letters, digits, '.', '_' and '-' (it names a folder)")
        return name


class Subwords(Section):
    """Subwords of units that arms with `subwords = true` use (Cuervo & Marxer: unigram, 5,000)."""

    kind: Literal["unigram", "bpe"] = "unigram"
    size: int = Field(5000, ge=3, le=60_000, description="single units count too")
    max_units: int = Field(5_000_000, ge=1, description="of training speech they are learned from")


class Units(Section):
    """Which tokenizer turns speech into units."""

    name: str = ""
    encoder: str = "adapted"
    clusters: int = Field(100, ge=2, le=32_000)
    frame_rate_hz: float = Field(25.0, gt=0)
    fit_hours: float = Field(0.3, gt=0)
    settings: dict[str, Any] = Field(default_factory=dict, description="settings of the encoder (docs/encoders.md)")
    tokenizer: str = Field("", description="folder of a tokenizer made before (units fit, units import-kmeans)")
    fitted_on: str = Field("", description="corpus of the part whose tokenizer is taken; empty: this part's")
    subwords: Subwords | None = None

    @model_validator(mode="before")
    @classmethod
    def _derive_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name"):
            pieces = data.get("subwords")
            suffix = f"-{pieces.get('kind', 'unigram')}{pieces.get('size', 5000)}" if isinstance(pieces, dict) else ""
            data = {**data, "name": data.get("encoder", "adapted") + suffix}
        return data

    @property
    def oracle(self) -> bool:
        return self.encoder == "phones"

    @property
    def supervised(self) -> bool:
        """Whether the encoder learned from phone labels; a run on such units is not textless in the papers' sense."""
        return self.encoder == "phonetic-supervised"


class Text(Section):
    """The text side of the vocabulary."""

    tokenizer: Literal["words", "bpe"] | str = "words"
    size: int = Field(2_000, ge=16)


class InterleaveKnot(Section):
    """Interleaving at one point of the training; absent values are those of the section."""

    at: float = Field(ge=0, le=1, description="share of the training's tokens")
    speech_share: float | None = None
    speech_span: str | None = None


class Interleave(Section):
    """How speech and text alternate inside one sequence (SIMS: words, Poisson(10), 30 % speech words)."""

    level: Literal["word", "sentence", "utterance"] = "word"
    speech_span: str = Field("poisson(10)", description="law of the words (level word) of a speech span")
    text_span: str = Field("", description="law of text spans; derived from speech_share when empty")
    speech_share: float | None = Field(0.3, description='of the words; "none" where both laws are given')
    share: Literal["floor", "expectation"] = "floor"
    first: Literal["drawn", "speech", "text", "even"] = "drawn"
    markers: bool = True
    gap: Literal["drop", "attach", "keep"] = "drop"
    boundary: Literal["overlap", "start", "majority", "slamkit"] = "overlap"
    redraw_each_epoch: bool = True
    curriculum: tuple[InterleaveKnot, ...] = ()

    @field_validator("speech_share", mode="before")
    @classmethod
    def _none(cls, share: Any) -> Any:
        return None if share == "none" else share  # TOML has no null

    @property
    def config(self) -> InterleaveConfig:
        """The same for the interleaver."""
        knots = tuple(Knot(**knot.model_dump()) for knot in self.curriculum)
        return InterleaveConfig(**self.model_dump(exclude={"curriculum"}), curriculum=knots)

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Interleave:
        _ = self.config
        return self


class Arm(Section):
    """One side of the comparison."""

    start: Literal["warm", "scratch"]
    mixture: dict[Stream, float]
    learning_rates: tuple[float, ...] = Field(min_length=1)
    subwords: bool = Field(default=False, description="spell speech by the subwords of [units.subwords]")
    max_epochs: int | None = Field(
        default=None, ge=1, description="most passes over any stream; a run that needs more is refused"
    )
    family: Family | None = Field(
        default=None, description="of the shapes and of their TextLMs; absent: as the names of the sizes say"
    )
    interleave: Interleave | None = Field(default=None, description="absent: the part's")

    @field_validator("mixture")
    @classmethod
    def _shares(cls, mixture: dict[str, float]) -> dict[str, float]:
        if not mixture or any(share <= 0 for share in mixture.values()):
            raise ValueError("give each stream of {text, speech, interleaved} that is used a share above 0")
        total = sum(mixture.values())
        return {name: share / total for name, share in sorted(mixture.items())}

    @field_validator("learning_rates")
    @classmethod
    def _rates(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if any(rate <= 0 for rate in rates) or len(set(rates)) != len(rates):
            raise ValueError("learning rates must be positive and different")
        return tuple(sorted(rates))

    @property
    def streams(self) -> tuple[str, ...]:
        return tuple(self.mixture)

    @property
    def vocabulary(self) -> str:
        """Ids of the arm's model: "textless" (units only), "text", or "joint"; a spoken one may end in "-subwords"."""
        if set(self.mixture) == {"text"}:
            return "text"
        return ("textless" if set(self.mixture) == {"speech"} else "joint") + ("-subwords" if self.subwords else "")

    def shape(self, size: str) -> str:
        """Name of the shape this arm has at a size of the grid. Example: family opt, 0.2M -> opt:0.2M"""
        return size if self.family is None else f"{self.family}:{size}"


class TextLM(Section):
    """The text model that warm arms start from: trained here, or a released one per size."""

    tokens: int = Field(600_000, ge=1, description="text tokens each size is trained on")
    learning_rates: tuple[float, ...] = (4e-3,)
    schedule: Literal["cosine", "linear"] = "cosine"
    pretrained: dict[str, str] = Field(default_factory=dict, description="size -> hub name or local folder")
    pretrained_flops: dict[str, float] = Field(default_factory=dict)


class Grid(Section):
    """Sizes x budgets x seeds."""

    sizes: tuple[str, ...] = Field(min_length=1)
    budgets_flops: tuple[float, ...] = Field((), description="isoFLOP budgets, under the convention `flops`")
    tokens_per_param: tuple[float, ...] = Field((), description="instead of budgets: D = ratio x N (Cuervo)")
    tokens: tuple[float, ...] = Field((), description="instead of budgets: D itself")
    flops: Convention = "exact"
    seeds: tuple[int, ...] = (0,)
    min_steps: int = Field(20, ge=1)

    @property
    def axis(self) -> Axis:
        """Which of the three is given."""
        return "budgets_flops" if self.budgets_flops else "tokens_per_param" if self.tokens_per_param else "tokens"

    @property
    def points(self) -> tuple[float, ...]:
        """Points of the axis, ascending."""
        return tuple(sorted(getattr(self, self.axis)))

    @model_validator(mode="after")
    def _one_axis(self) -> Grid:
        if sum(map(bool, (self.budgets_flops, self.tokens_per_param, self.tokens))) != 1:
            raise ValueError("give exactly one of budgets_flops, tokens_per_param and tokens")
        for name in ("sizes", "budgets_flops", "tokens_per_param", "tokens", "seeds"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name} has an entry twice: {values}")
        if any(value <= 0 for value in self.points):
            raise ValueError("budgets_flops, tokens_per_param and tokens must be positive")
        return self


class Train(Section):
    """Optimizer, schedule, batch."""

    context: int = Field(256, ge=8)
    pack: Literal["best_fit", "stream"] = Field(
        "best_fit", description="whole documents apart, or one chain with attention across documents (Cuervo)"
    )
    batch_rows: int = Field(16, ge=1)
    learning_rate_scaling: Literal["none", "sqrt_dim"] = "sqrt_dim"
    final_lr_fraction: float = Field(0.1, ge=0, le=1)
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    warmup_tokens: float | None = Field(
        None, ge=0, description="of every run, whatever its length; absent: warmup_fraction of its tokens"
    )
    weight_decay: float = Field(0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float = Field(1.0, gt=0)
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"
    decay_fraction: float = Field(0.2, gt=0, le=1, description="of a run's tokens, that the fall of wsd takes")
    branches: bool = Field(
        default=False, description="wsd: one trunk per arm, size and seed; shorter runs leave it to cool down"
    )
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    checks: int = Field(6, ge=1, description="validations along each run; the early-stopped loss is chosen among them")
    new_rows: Literal["calibrated", "gaussian", "mean", "mean_cov"] = "calibrated"

    @model_validator(mode="after")
    def _trunk(self) -> Train:
        if self.branches and self.schedule != "wsd":
            raise ValueError(f"branches need schedule = 'wsd', whose runs begin alike; it is '{self.schedule}'")
        return self


BenchmarkName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]\w*$")]
"""Stands in step names and columns of runs.csv."""


class Evals(Section):
    """Which forced choices are scored, in which directions, with how many symmetric pairs."""

    sets: tuple[str, ...] = ()
    benchmarks: dict[BenchmarkName, str] = Field(
        default_factory=dict, description="name -> folder made by `eval prepare`, scored besides the sets"
    )
    benchmark_pairs: int | None = Field(
        None, ge=1, description="of each of their sets, drawn with the seed; absent: all"
    )
    directions: tuple[Direction, ...] = ("ss",)
    pairs: int = Field(100, ge=1)
    protocols: tuple[str, ...] = Field(
        ("speechscale",), min_length=1, description="how choices are decided (docs/evals.md); runs.csv has the first"
    )
    largest_budget_only: bool = False
    probe_pairs: int = Field(0, ge=0, description="of each set, scored at every check of a run too; 0: none")

    @property
    def scores(self) -> bool:
        """Whether anything is scored."""
        return bool(self.sets or self.benchmarks)


class Vocoder(Section):
    """Units -> speech without weights from outside; off where no audio samples are wanted."""

    enabled: bool = False
    hours: float = Field(0.3, gt=0)
    steps: int = Field(300, ge=1)
    voices: int = Field(1, ge=1, description="training voices it learns; two make better sound of strange voices")
    samples: int = Field(3, ge=1)


class Fit(Section):
    """Laws and intervals."""

    replicates: int = Field(1000, ge=100, description="bootstrap replicates; the largest of a study's parts counts")
    baseline: str = "textless"


class Part(Section):
    """One complete experiment of a study."""

    title: str = ""
    seed: int = 0
    corpus: Corpus
    units: Units
    text: Text
    interleave: Interleave
    arms: dict[str, Arm] = Field(min_length=1)
    text_lm: TextLM
    grid: Grid
    train: Train
    evals: Evals
    vocoder: Vocoder
    fit: Fit

    @model_validator(mode="after")
    def _fits_together(self) -> Part:
        if self.fit.baseline not in self.arms:
            nearest = sorted(self.arms)
            raise ValueError(f"fit.baseline '{self.fit.baseline}' is not an arm of this part; arms: {nearest}")
        spelled = [name for name, arm in self.arms.items() if arm.subwords]
        if spelled and self.units.subwords is None:
            raise ValueError(f"arms.{spelled[0]}.subwords needs a section [units.subwords]")
        unmarked = [name for name, arm in self.arms.items() if not self.interleave_of(arm).markers]
        if unmarked and {"st", "ts"} & set(self.evals.directions) and self.evals.scores:
            raise ValueError(
                "evals.directions st and ts announce the other modality by a marker; interleave.markers is off "
                f"(arm {unmarked[0]})"
            )
        if self.train.branches:
            mixed = [name for name, arm in self.arms.items() if "interleaved" in arm.mixture]
            rising = [name for name in mixed if self.interleave_of(self.arms[name]).curriculum]
            if rising:
                raise ValueError(
                    f"train.branches: runs of different lengths share their beginning, but the curriculum of arm "
                    f"'{rising[0]}' stretches with the length; set branches = false or interleave.curriculum = []"
                )
        recorded = self.corpus.kind in ("folder", "corpus")
        if self.units.oracle and recorded:
            raise ValueError(
                "units.encoder 'phones' is an oracle of the speech engine; recordings need another, such as 'adapted'"
            )
        if recorded and self.evals.sets:
            raise ValueError(
                "evals.sets need the storyworld, whose facts are known; set evals.sets = [] for recordings, and name "
                "prepared benchmarks in evals.benchmarks"
            )
        return self

    def interleave_of(self, arm: Arm) -> Interleave:
        """How an arm interleaves."""
        return arm.interleave or self.interleave


class Study(Section):
    """A resolved study: header and complete parts."""

    study: StudyHeader
    parts: dict[str, Part]

"""What a card may say: facts of a model or a data set, as the records hold them.

Enters: nothing. Leaves: frozen records that `cards` and `dataset_card` lay out. The one decision worth knowing: a field
that the records do not hold is None, and a card then says "not recorded"; nothing is filled in from elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NOT_RECORDED = "not recorded"
Lines = tuple[tuple[str, str], ...]
"""Label and value, in the order they are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Under which license something is given away.

    Args:
        license: an identifier of the hub; "" if none was chosen.
        name, link: of a license that the hub has no identifier for (license "other").
    """

    license: str = ""
    name: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFacts:
    """The speech units.

    Args:
        encoder, revision, layer: what makes them. kmeans_sha256: checksum of the centroids, if there are any.
        oracle: phones of a speech engine. supervised: the encoder learned from labels.
        per_second: after deduplication. voices: of the vocoder that goes along; None without one.
    """

    count: int
    encoder: str | None = None
    revision: str | None = None
    layer: int | None = None
    kmeans_sha256: str | None = None
    frame_rate_hz: float | None = None
    per_second: float | None = None
    oracle: bool = False
    supervised: bool = False
    tokenizer_included: bool = False
    voices: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdFacts:
    """The vocabulary. Ranges are half open; None where there is no such block or marker.

    Args:
        unit_example, text_example: a prompt of each kind that the model knows all tokens of; "" without text.
    """

    size: int
    text: tuple[int, int] | None
    units: tuple[int, int] | None
    speech_marker: int | None
    text_marker: int | None
    eos: int
    eos_name: str
    unit_example: str
    text_example: str = ""
    markers: tuple[str, str]
    merged_subwords: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """One source of training or test data.

    Args:
        what: "speech" or "text". name: of the corpus. made: how it came about.
        hours: of the training split. amount: what was there, in words. seen: how much of it was trained on.
        licences: licence -> hours. terms: the licence where there are no hours, as of text.
        voices: speakers of the training split. synthetic: all of them are machines.
        languages: codes. split_hours: split -> hours.
    """

    what: str
    name: str
    made: str
    hours: float | None = None
    amount: str = ""
    seen: str = ""
    licences: tuple[tuple[str, float], ...] = ()
    terms: str = ""
    voices: tuple[str, ...] = ()
    synthetic: bool | None = None
    languages: tuple[str, ...] = ()
    split_hours: tuple[tuple[str, float], ...] = ()
    hub_name: str | None = None
    dropped: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartFacts:
    """What training began with.

    Args:
        kind: "scratch", "warm", "textless-warm", "slm". base: name of the model; hub_base: OWNER/NAME if it is one.
    """

    kind: str
    base: str = ""
    hub_base: str | None = None
    revision: str = ""
    details: Lines = ()

    @property
    def foreign(self) -> bool:
        """Whether it began with a model whose training no record here tells of."""
        return bool(self.base) and not self.details


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeFacts:
    """What it cost.

    Args:
        flops: (convention, FLOPs of this run). text_lm_flops: of the TextLM it began with; text_lm_counted: exactly, by
            its own record, not as a study's file says.
        sweep: (runs, FLOPs) of the learning rates that were tried at the same arm and size.
        seconds: of wall time. cpu_seconds: of processors. device_hours: devices times hours.
        covers: what the times are of.
    """

    flops: tuple[tuple[str, float], ...]
    text_lm_flops: float | None = None
    text_lm_counted: bool = True
    sweep: tuple[int, float] | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    device_hours: float | None = None
    devices: str | None = None
    machine: str | None = None
    covers: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFacts:
    """One accuracy. direction: as "ss". `low` and `high` bound the 95 % interval; None below two pairs."""

    benchmark: str
    title: str
    set: str
    tag: str
    direction: str
    protocol: str
    estimate: float
    low: float | None
    high: float | None
    n_items: int
    n_pairs: int
    chance: float
    version: str = ""
    licence: str = ""

    @property
    def at_chance(self) -> bool:
        """Whether the interval holds what guessing gives."""
        return self.low is not None and self.high is not None and self.low <= self.chance <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class LossFacts:
    """One loss. se: standard error over documents."""

    what: str
    unit: str
    value: float
    se: float | None = None
    split: str = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFacts:
    """One recording beside the card. path: below the card's folder."""

    group: str
    title: str
    text: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Everything a model card says.

    Args:
        name: of the model. repo: OWNER/NAME it will have; "" if that is not known.
        origin: which study, arm or job it comes from, one sentence of Markdown; names in it as code (`code_span`).
        question: what the study asked. recipe: how it was trained.
        generation: measures of generated speech (name, value, how). protocols: name -> definition.
        code: version, commit, libraries.
    """

    name: str
    origin: str
    architecture: str
    family: str
    dtype: str
    params_total: int
    params_non_embedding: int | None
    context_tokens: int | None
    arm: str
    units: UnitFacts
    ids: IdFacts
    start: StartFacts
    terms: Terms
    languages: tuple[str, ...]
    data: tuple[DataFacts, ...]
    recipe: Lines
    compute: ComputeFacts
    losses: tuple[LossFacts, ...] = ()
    metrics: tuple[MetricFacts, ...] = ()
    protocols: Lines = ()
    generation: tuple[tuple[str, str, str], ...] = ()
    samples: tuple[SampleFacts, ...] = ()
    code: Lines = ()
    question: str = ""
    tokens_seen: int | None = None
    rate_at_edge: bool = False
    seed: int | None = None
    notes: tuple[str, ...] = ()
    repo: str = ""

    @property
    def hears(self) -> bool:
        """Whether a recording can be its prompt."""
        return self.units.tokenizer_included and not self.units.oracle

    @property
    def speech_hours(self) -> float | None:
        """Hours of different training speech; None where no record says."""
        hours = [source.hours for source in self.data if source.what == "speech" and source.hours is not None]
        return sum(hours) if hours else None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """A file of a data set. sha256: "" where it is too large to be asked for. included: it lies beside the card."""

    path: str
    bytes: int
    sha256: str
    included: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetFacts:
    """Everything a data card says. kind: "corpus" or "units"."""

    name: str
    kind: str
    terms: Terms
    made: str
    utterances: int
    hours: float | None
    speakers: int | None
    splits: tuple[tuple[str, int, float | None], ...]
    licences: tuple[tuple[str, int, float | None], ...]
    languages: tuple[str, ...]
    dropped: int | None
    files: tuple[FileFacts, ...]
    synthetic: bool | None = None
    units: UnitFacts | None = None
    options: Lines = ()
    columns: Lines = ()
    words_timed_share: float | None = None
    reasons: tuple[tuple[str, int], ...] = field(default=())

"""What a run needs before its first step: data, tokens, rate, the model it starts from.

Enters: a step's config and the folders of its inputs. Leaves: a `Setting`.
The one decision worth knowing: the budget becomes tokens here, with the vocabulary the run really has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from speechscale.errors import DataError
from speechscale.model.flops import Flops, flops_per_token
from speechscale.model.sizes import Size, get_size, params
from speechscale.model.slm import drop_text, extend, load_model, new_model
from speechscale.study.plan import tokens_at
from speechscale.study.spec import Interleave, Train
from speechscale.study.steps import read_record
from speechscale.tokens.interleave import InterleaveConfig
from speechscale.tokens.mixture import MixtureSampler
from speechscale.tokens.packing import Batch
from speechscale.tokens.sources import pack_store
from speechscale.tokens.store import TokenStore
from speechscale.tokens.vocabulary import Vocabulary
from speechscale.train.loop import TrainConfig
from speechscale.train.schedule import decay_start

VALIDATION_ROWS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Token stores of the three splits under one vocabulary."""

    vocabulary: Vocabulary
    train: TokenStore
    select: TokenStore
    test: TokenStore

    @classmethod
    def open(cls, folder: Path, vocabulary: str) -> Data:
        """Open the stores of a "tokens" or "text" step under the vocabulary called so."""
        ids = Vocabulary.load(folder / vocabulary)
        stores = {split: TokenStore.open(folder / split, ids) for split in ("train", "select", "test")}
        return cls(vocabulary=ids, **stores)

    def packed(self, split: str, stream: str, context: int, interleave: InterleaveConfig) -> list[Batch]:
        """Every document of a split once, as batches; empty when the split has none of this stream."""
        store: TokenStore = getattr(self, split)
        if not store.documents(stream, interleave):
            return []
        return pack_store(store, [stream], context, interleave=interleave, batch_rows=VALIDATION_ROWS)


def train_config(
    section: Train, *, tokens: int, rate: float, select_on: str, warmup_tokens: int | None = None
) -> TrainConfig:
    """The loop's config from the study's section and what this run works out."""
    return TrainConfig(
        tokens=tokens,
        batch_rows=section.batch_rows,
        context=section.context,
        learning_rate=rate,
        final_lr_fraction=section.final_lr_fraction,
        warmup_fraction=section.warmup_fraction,
        warmup_tokens=warmup_tokens,
        weight_decay=section.weight_decay,
        betas=section.betas,
        clip_norm=section.clip_norm,
        precision=section.precision,
        schedule=section.schedule,
        decay_fraction=section.decay_fraction,
        checks=section.checks,
        select_on="text" if select_on == "text" else "speech",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A run of the grid before it starts.

    Args:
        main: the modality whose loss counts. per_token: its compute.
    """

    config: Mapping[str, Any]
    section: Train
    size: Size
    data: Data
    interleave: InterleaveConfig
    per_token: Flops
    main: Literal["speech", "text"]

    @classmethod
    def of(cls, config: Mapping[str, Any], inputs: Mapping[str, Path]) -> Setting:
        """Open what the config of a run or trunk names."""
        section, size = Train.model_validate(config["train"]), get_size(config["size"])
        textual = config["vocabulary"] == "text"
        (folder,) = (path for name, path in inputs.items() if name.startswith(("tokens/", "text/")))
        data = Data.open(folder, "vocabulary" if textual else config["vocabulary"])
        return cls(
            config=config,
            section=section,
            size=size,
            data=data,
            interleave=Interleave.model_validate(config["interleave"]).config,
            per_token=flops_per_token(size, data.vocabulary.size, section.context),
            main="text" if textual else "speech",
        )

    def tokens_at(self, point: float) -> int:
        """Tokens of a run at a point of the grid's axis."""
        total = params(self.size, self.data.vocabulary.size).total
        return tokens_at(self.config["axis"], point, self.per_token, self.config["flops"], total)

    @property
    def tokens(self) -> int:
        """Tokens of this run."""
        return self.tokens_at(self.config["point"])

    def branches_at(self, point: float) -> int:
        """Tokens after which the run of that point leaves its trunk."""
        return decay_start(self.tokens_at(point), self.section.decay_fraction)

    def train_config(self, rate: float) -> TrainConfig:
        """The loop's config; where lengths share a trunk, they share the warm-up of the shortest."""
        section, warmup = self.section, self.section.warmup_tokens
        if warmup is None and section.branches:
            warmup = section.warmup_fraction * self.tokens_at(self.config["shortest_point"])
        return train_config(
            section,
            tokens=self.tokens,
            rate=rate,
            select_on=self.main,
            warmup_tokens=None if warmup is None else round(warmup),
        )

    def sampler(self) -> MixtureSampler:
        """The training rows, enough of them.

        Raises:
            DataError: more passes over a stream would be needed than the arm allows.
        """
        sampler = MixtureSampler.of_store(
            self.data.train,
            self.config["mixture"],
            self.section.context,
            self.config["seed"],
            self.interleave,
            pack=self.section.pack,
            max_epochs=self.config["max_epochs"],
            total_targets=None if self.section.branches else self.tokens,  # lengths share their beginning
        )
        sampler.require(self.tokens)
        return sampler

    def validation(self) -> dict[str, list[Batch]]:
        """Sets "select" and "test" of the main modality, and the other streams of the test split that there are."""
        sets: dict[str, tuple[str, str]] = {"select": ("select", self.main), "test": ("test", self.main)}
        if self.main == "speech":
            sets |= {stream: ("test", stream) for stream in ("text", "interleaved")}
        packed = {name: self.data.packed(*of, self.section.context, self.interleave) for name, of in sets.items()}
        return {name: batches for name, batches in packed.items() if batches}

    def start(self, inputs: Mapping[str, Path]) -> tuple[Any, dict[str, Any]]:
        """The model before its first step, on the device it is trained on, and what its TextLM cost."""
        config, ids, seed = self.config, self.data.vocabulary.size, self.config["seed"]
        if config["start"] == "scratch":
            model = new_model(self.size, ids, self.section.context, seed)
            return to_device(model), {"flops_text_lm_exact": 0.0, "text_lm": ""}
        if config["pretrained"]:
            text_lm, cost, name = load_model(config["pretrained"]), config["pretrained_flops"], config["pretrained"]
        else:
            name, folder, results = best_of(inputs, "text_lm/")
            text_lm, cost = load_model(folder / "model"), results["flops_exact"]
        if config["vocabulary"].startswith("textless"):
            model = drop_text(text_lm, ids, seed)
        else:
            model = extend(text_lm, self.data.vocabulary.text_size, ids, seed, self.section.new_rows)
        return to_device(model), {"flops_text_lm_exact": cost, "text_lm": name}


def to_device(model: Any) -> Any:
    """Move a model to the GPU this process sees, if any."""
    return model.to("cuda") if torch.cuda.is_available() else model


def best_of(inputs: Mapping[str, Path], prefix: str) -> tuple[str, Path, dict[str, Any]]:
    """Among the inputs below `prefix` the record with the lowest selection loss: (name, folder, results)."""
    found = []
    for name, path in sorted(inputs.items()):
        record = read_record(path) if name.startswith(prefix) else None
        if record is not None and record["results"].get("loss_select") is not None:
            found.append((record["results"]["loss_select"], name, path, record["results"]))
    if not found:
        raise DataError(f"every candidate below '{prefix}' diverged; lower its learning_rates")
    _, name, path, results = min(found, key=lambda entry: entry[:2])
    return name, path, results


def learning_rate(config: Mapping[str, Any], inputs: Mapping[str, Path]) -> tuple[float, bool]:
    """The run's rate, and whether it is the lowest or highest of those its sweep tried."""
    rates = config["learning_rates"]
    if config["sweep"]:
        return rates[0], False  # the table of runs decides about the edge, when all rates are known
    rate = rates[0] if len(rates) == 1 else best_of(inputs, "run/")[2]["learning_rate"]
    return rate, rate in (min(rates), max(rates))

"""Catches a plan that a machine would not keep: a tensor forgotten or counted twice, a moment that is fuller than said.

Measured is what is alive: every storage that an operation makes, until it is freed. Large shapes run under torch's
FakeTensorMode, which runs the same operations and autograd formulas without the numbers; so do the operations of
attention kernels that exist on GPUs only.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, AutoModelForCausalLM

from speechscale.errors import DataError
from speechscale.model.configs import model_config
from speechscale.model.fitting import advise, largest_micro_rows, require_memory
from speechscale.model.memory import Job, count_parameters, plan_memory
from speechscale.model.sizes import SIZES, get_size, params
from speechscale.train import attention as attention_module
from speechscale.train import objective as objective_module
from speechscale.train.adapt import Adaptation, adapt
from speechscale.train.attention import NAME, Documents, Rows, attention_of_documents, document_mask
from speechscale.train.objective import CHUNK_LOGITS, Objective
from speechscale.train.parallel import Group, spread

GIB = 2**30
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*broadcast_buffers.* is deprecated:FutureWarning"),
]


class Alive(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, and their peak."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, int] = {}
        for tensor in tensors:
            self.add(tensor)

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.known:
            self.known[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.forget, key)

    def forget(self, key: int) -> None:
        self.now -= self.known.pop(key)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return out


def gpu_attention(
    module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, documents: Any = None, **_: Any
) -> Any:
    """The operations that attention comes down to on a GPU, in bf16 under autocast."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (tensor.bfloat16() for tensor in (query, key, value))
    repeats = query.shape[1] // key.shape[1]
    if documents.kernel == "varlen":
        from torch.nn.attention.varlen import varlen_attn

        q, k, v = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
        longest, borders = max(documents.lengths), documents.borders
        grouped = repeats > 1
        out: Any = varlen_attn(q, k, v, borders, borders, longest, longest, window_size=(-1, 0), enable_gqa=grouped)
        return out[None], None
    key, value = (tensor.repeat_interleave(repeats, 1) if repeats > 1 else tensor for tensor in (key, value))
    numbers = documents.additive(query.dtype).expand(-1, query.shape[1], -1, -1)
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    return kernel(query, key, value, numbers, True, scale=scaling)[0].transpose(1, 2), None


@contextmanager
def attention_of(job: Job) -> Iterator[None]:
    if job.device == "cuda":
        AttentionInterface.register(NAME, gpu_attention)
    try:
        yield
    finally:
        AttentionInterface.register(NAME, attention_module._attend)


def rows_of(job: Job) -> Rows:
    """Rows of two documents each, of two lengths: equal ones take a shorter way that keeps a copy less."""
    n, half = job.micro_rows * job.context, job.context // 2 - 1
    if job.kernel == "mask":
        shape = (job.micro_rows, job.context)
        segments = torch.zeros(shape, dtype=torch.int64)
        documents = Documents("mask", job.fp32_attention, document_mask(segments))
    else:
        shape = (1, n)
        borders = torch.zeros(2 * job.micro_rows + 1, dtype=torch.int32)
        documents = Documents("varlen", job.fp32_attention, None, borders, (half, job.context - half) * job.micro_rows)
    tokens, positions = (torch.zeros(shape, dtype=torch.int64) for _ in range(2))
    source, targets = (torch.zeros(n, dtype=torch.int64) for _ in range(2))
    return Rows(tokens, positions, documents, source, targets, torch.ones(n))


def model_of(job: Job) -> Any:
    config = model_config(job.size, job.vocab, job.context)
    for name in ("dropout", "attention_dropout", "hidden_dropout"):
        assert not getattr(config, name, 0.0), "dropout keeps masks, which the loop does not train with"
    torch.set_default_dtype(torch.bfloat16 if job.sharded and job.precision == "bf16" else torch.float32)
    try:
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").train()
    finally:
        torch.set_default_dtype(torch.float32)
    if job.trains != "all":
        model = adapt(model, Adaptation(trains=job.trains, rank=max(1, job.lora_rank)), seed=0)
    if job.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def fake(job: Job) -> Any:
    """Fake tensors where the size or the kernel asks for them; small jobs of a CPU run as they are."""
    return FakeTensorMode() if job.device == "cuda" else nullcontext()


def kept_after_forward(job: Job) -> int:
    """Bytes alive between the forward and the backward pass of the body, beside parameters and its result."""
    with fake(job):
        model = model_of(job)
        objective = Objective(model, precision=job.precision, autocast=not job.sharded)
        alive = Alive(*model.parameters())
        before = alive.now
        with attention_of(job), alive:
            rows = rows_of(job)
            hidden = objective.hidden_states(rows, job.precision)
            return alive.now - before - hidden.untyped_storage().nbytes()


def planned_after_forward(job: Job) -> int:
    kinds = plan_memory(job).moments["head"]
    return kinds["activations"] + (0 if job.sharded else kinds["weight copies"])  # a sharded body stands for itself


def peak_of_steps(job: Job) -> int:
    """Most bytes alive over two steps of the loop's operations; the first one makes the optimizer's moments."""
    with fake(job):
        model = model_of(job)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
        objective = Objective(model, precision=job.precision)
        alive = Alive(*model.parameters())
        # The backward pass of checkpointed blocks runs attention again.
        with attention_of(job), attention_of_documents(model), alive:
            for _ in range(2):
                for _ in range(job.parts):
                    objective(rows_of(job)).total.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
                optimizer.step()
                optimizer.zero_grad()
        return alive.peak


def job(name: str, rows: int, context: int, **options: Any) -> Job:
    size = get_size(name)
    layers = options.pop("layers", size.layers)
    options = {"precision": "fp32", "kernel": "varlen", "device": "cpu", "chunk_logits": CHUNK_LOGITS} | options
    vocab = size.text_vocab or 450
    size = dataclasses.replace(size, layers=layers)
    return Job(size=size, vocab=vocab, micro_rows=rows, context=context, **options)


BF16 = {"precision": "bf16"}
GPU = {"precision": "bf16", "device": "cuda", "chunk_logits": 2**26}
SHARDED = {"precision": "bf16", "device": "cuda", "parallel": "fsdp", "world": 2}
BODIES = [
    *(
        ("0.2M", 2, 64, {"kernel": kernel, **mode})
        for kernel in ("mask", "varlen")
        for mode in ({}, BF16, GPU, SHARDED)
    ),
    ("0.5M", 1, 200, BF16),
    *(("qwen2.5-0.5B", 1, 256, {"layers": 1, "kernel": kernel}) for kernel in ("mask", "varlen")),
    ("0.5M", 3, 96, {"fp32_attention": True, **BF16}),
    *((f"{family}:0.2M", 2, 64, mode) for family in ("qwen2", "qwen3", "gpt_neox", "opt") for mode in (BF16, GPU)),
    ("opt:0.2M", 2, 64, {"kernel": "mask"}),
    ("gpt_neox:0.2M", 2, 64, {"kernel": "mask"}),
    *(("0.2M", 2, 64, {"trains": "rows", "kernel": "mask", **mode}) for mode in ({}, BF16)),
    *(("0.2M", 2, 64, {"trains": "lora", "lora_rank": 8, **mode}) for mode in ({}, BF16)),
    *(("0.5M", 2, 64, {"checkpointing": True, **mode}) for mode in ({}, BF16, GPU)),
    ("qwen2.5-1.5B", 4, 2048, {"layers": 2, **GPU}),
    ("qwen2.5-7B", 2, 2048, {"layers": 2, **GPU}),
    ("qwen2.5-7B", 2, 1024, {"layers": 2, "kernel": "mask", **SHARDED}),
]


@pytest.mark.parametrize(("name", "rows", "context", "options"), BODIES)
def test_activations_are_those_kept(name: str, rows: int, context: int, options: dict[str, Any]) -> None:
    one = job(name, rows, context, **options)
    assert planned_after_forward(one) == pytest.approx(kept_after_forward(one), rel=0.03)


STEPS = [
    ("0.2M", 4, 128, {}),
    ("0.2M", 4, 128, {"kernel": "mask", **BF16}),
    ("1M", 4, 192, {"checkpointing": True, **BF16}),
    ("1M", 2, 128, {"parts": 2}),
    ("opt:0.5M", 2, 128, BF16),
    ("gpt_neox:0.5M", 2, 128, {"checkpointing": True}),
    ("0.5M", 4, 128, {"trains": "lora", "lora_rank": 8, **BF16}),
    ("0.5M", 4, 128, {"trains": "rows"}),
    ("qwen2.5-1.5B", 2, 2048, {"layers": 2, **GPU}),
    ("qwen2.5-1.5B", 2, 2048, {"layers": 2, "checkpointing": True, "parts": 2, **GPU}),
    ("qwen2.5-7B", 1, 2048, {"layers": 2, "checkpointing": True, **GPU}),
]


@pytest.mark.parametrize(("name", "rows", "context", "options"), STEPS)
def test_peak_of_whole_steps(
    name: str, rows: int, context: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = job(name, rows, context, **options)
    monkeypatch.setattr(objective_module, "CHUNK_LOGITS", one.chunk_logits)
    assert plan_memory(one).tensors == pytest.approx(peak_of_steps(one), rel=0.08)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [("qwen2.5-1.5B", {}), ("qwen2.5-7B", {"checkpointing": True})],
)
def test_large_models_whole(name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """All layers of the shapes that the plan is for."""
    one = job(name, 4, 2048, **GPU, **options)
    monkeypatch.setattr(objective_module, "CHUNK_LOGITS", one.chunk_logits)
    assert plan_memory(one).tensors == pytest.approx(peak_of_steps(one), rel=0.05)


class AliveNow(TorchDispatchMode):
    """Like `Alive`, but adds up all storages after each operation, because FSDP2 frees some by emptying them."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        super().__init__()
        self.peak = 0
        self.storages: dict[int, Any] = {}
        for tensor in tensors:
            self.add(tensor)

    def add(self, tensor: Any) -> None:
        storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()
        key = storage._cdata
        if key not in self.storages:
            self.storages[key] = weakref.ref(storage, lambda _: self.storages.pop(key))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((out, args)):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        self.peak = max(self.peak, sum(ref().nbytes() for ref in list(self.storages.values()) if ref() is not None))
        return out


@contextmanager
def group_of(job: Job) -> Iterator[Group]:
    """One process of several whose exchanges do nothing (fsdp), or alone in a real group (ddp)."""
    if job.parallel == "fsdp":
        from torch.testing._internal.distributed.fake_pg import FakeStore

        torch.distributed.init_process_group("fake", store=FakeStore(), rank=0, world_size=job.world)
    else:
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield Group(rank=0, world=job.world)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parallel", "name", "options"),
    [
        ("fsdp", "3M", BF16),
        ("fsdp", "3M", {"checkpointing": True}),
        ("fsdp", "3M", {"checkpointing": True, **BF16}),
        ("ddp", "3M", BF16),
        ("ddp", "3M", {"checkpointing": True}),
    ],
)
def test_peak_of_one_process_of_several(parallel: str, name: str, options: dict[str, Any]) -> None:
    one = job(name, 2, 128, parallel=parallel, world=4, **options)
    with group_of(one) as group:
        model = model_of(dataclasses.replace(one, world=1))
        objective = Objective(model, precision=one.precision)
        call = spread(objective, group, one.parallel)
        optimizer = torch.optim.AdamW(objective.parameters(), fused=True)
        alive = AliveNow(*objective.parameters())
        with attention_of_documents(model), alive:
            for _ in range(2):
                call(rows_of(one)).total.backward()
                optimizer.step()
                optimizer.zero_grad()
    assert plan_memory(one).tensors == pytest.approx(alive.peak, rel=0.08)


def test_parameters_are_the_models() -> None:
    for name in ("0.2M", "qwen2:0.2M", "gpt_neox:0.2M", "opt:0.2M"):
        for options in ({}, {"trains": "rows"}, {"trains": "lora", "lora_rank": 4}):
            one = job(name, 1, 32, **options)
            model = model_of(one)
            count = count_parameters(one)
            assert count.total == sum(p.numel() for p in model.parameters())
            assert count.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_weights_of_a_qwen_by_hand() -> None:
    """1.54B parameters: 4 bytes of weights, 4 of gradients, 8 of the optimizer."""
    plan = plan_memory(job("qwen2.5-1.5B", 1, 2048, **GPU))
    total = params(SIZES["qwen2.5-1.5B"], 151_936).total
    step = plan.moments["optimizer"]
    assert (step["weights"], step["gradients"], step["optimizer"]) == (4 * total, 4 * total, 8 * total)
    assert (plan.checkpoint, plan.folder) == (12 * total, 4 * total)


def test_sharding_divides_what_lasts() -> None:
    one, eight = (job("qwen2.5-7B", 1, 2048, parallel="fsdp", world=world, **GPU) for world in (1, 8))
    alone, shared = (plan_memory(each).moments["optimizer"] for each in (one, eight))
    assert shared["weights"] == pytest.approx(alone["weights"] / 8, rel=1e-6)
    assert plan_memory(eight).checkpoint == plan_memory(one).checkpoint
    replicated = plan_memory(dataclasses.replace(eight, parallel="ddp"))
    assert replicated.moments["optimizer"] == alone
    assert replicated.moments["head"]["gradients"] == alone["gradients"], "DDP's buckets last from step to step"


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 64),
    context=st.integers(2, 4096),
    name=st.sampled_from(["0.2M", "qwen2.5-0.5B", "pythia-160m", "opt-125m"]),
    mode=st.sampled_from([{}, BF16, GPU, SHARDED]),
    kernel=st.sampled_from(["mask", "varlen", "flex"]),
    checkpointing=st.booleans(),
)
def test_more_tokens_need_more(
    rows: int, context: int, name: str, mode: dict[str, Any], kernel: str, checkpointing: bool
) -> None:
    one = job(name, rows, context, kernel=kernel, checkpointing=checkpointing, **mode)
    plan = plan_memory(one)
    assert plan.need <= plan_memory(dataclasses.replace(one, micro_rows=rows + 1)).need
    assert plan.need <= plan_memory(dataclasses.replace(one, context=context + 1)).need
    assert plan.tensors == max(sum(kinds.values()) for kinds in plan.moments.values())
    assert all(value >= 0 for kinds in plan.moments.values() for value in kinds.values())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_largest_rows_is_the_border(checkpointing: bool) -> None:
    one = job("qwen2.5-0.5B", 1, 2048, checkpointing=checkpointing, **GPU)
    rows = largest_micro_rows(one, 80 * GIB)
    assert rows > 1
    assert plan_memory(dataclasses.replace(one, micro_rows=rows)).need <= 80 * GIB
    assert plan_memory(dataclasses.replace(one, micro_rows=rows + 1)).need > 80 * GIB
    assert largest_micro_rows(one, GIB) == 0


def test_advice_is_tried_before_it_is_given() -> None:
    large = job("qwen2.5-7B", 1, 2048, world=8, **GPU)
    with pytest.raises(DataError, match=r"needs .* GiB per device .*fsdp over the 8 devices .*lora_rank = 16"):
        require_memory(large, 80 * GIB)
    assert not any(words.startswith("micro_rows") for words in advise(large, 80 * GIB)), "one row is the least"
    with pytest.raises(DataError, match="take a smaller size"):
        require_memory(large, GIB)
    small = job("qwen2.5-0.5B", 64, 2048, **GPU)
    assert "micro_rows = " in advise(small, 80 * GIB)[0]
    assert require_memory(dataclasses.replace(small, micro_rows=1), 80 * GIB).need < 80 * GIB


def test_table_adds_up() -> None:
    plan = plan_memory(job("qwen2.5-1.5B", 2, 2048, checkpointing=True, **GPU))
    text = "\n".join(plan.lines())
    assert "parameters: 1,543,714,304, trained 1,543,714,304" in text
    assert text.count("<- fullest") == 1
    assert f"{plan.need / GIB:,.2f} GiB" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rows": 0}, "micro_rows = 0"),
        ({"trains": "lora"}, "lora_rank = 0"),
        ({"lora_rank": 4}, "trains = 'all'"),
        ({"name": "gemma-2b"}, "memory of family 'gemma'"),
    ],
)
def test_refusals(options: dict[str, Any], words: str) -> None:
    name, rows = options.pop("name", "0.2M"), options.pop("rows", 1)
    with pytest.raises(DataError, match=words):
        plan_memory(job(name, rows, 64, **options))

"""Two backends of attention agree: on a GPU for real, here through a kernel that reads what the real one is given."""

import inspect

import pytest
import torch

from tests.trainer.small_run import CHANNELS
from trainer.model.attention import grouped, segments, varlen
from trainer.model.config import SIZES, ModelConfig, TextConfig
from trainer.model.dit import DiT, num_parameters
from trainer.model.text import train_tokenizer

LENGTHS, WORDS = [5, 3, 5, 1, 8], [4, 2, 7, 1, 3]


def drawn(keys: list[int], device: str = "cpu") -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(sum(LENGTHS), 2, 16, generator=generator)
    k, v = torch.randn(2, sum(keys), 2, 16, generator=generator)
    return tuple(x.to(torch.bfloat16).float().to(device).requires_grad_() for x in (q, k, v))


def kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
) -> torch.Tensor:
    """One sample at a time by the cumulative lengths that the GPU's kernel is given."""
    assert query.dtype == key.dtype == value.dtype == torch.bfloat16
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert (int(cu_seq_q.diff().max()), int(cu_seq_k.diff().max())) == (max_q, max_k)
    outputs = []
    for i in range(len(cu_seq_q) - 1):
        q = query[cu_seq_q[i] : cu_seq_q[i + 1]].float()
        k, v = (x[cu_seq_k[i] : cu_seq_k[i + 1]].float() for x in (key, value))
        weights = (torch.einsum("qnk,mnk->nqm", q, k) / q.shape[-1] ** 0.5).softmax(-1)
        outputs.append(torch.einsum("nqm,mnk->qnk", weights, v))
    return torch.cat(outputs).to(torch.bfloat16)


@pytest.mark.parametrize("keys", [LENGTHS, WORDS], ids=["itself", "text"])
def test_what_varlen_is_given_is_what_grouped_computes(keys: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    real = pytest.importorskip("torch.nn.attention.varlen")
    names = list(inspect.signature(real.varlen_attn).parameters)
    assert names[:7] == list(inspect.signature(kernel).parameters)
    monkeypatch.setattr(real, "varlen_attn", kernel)
    where = segments(LENGTHS, keys)
    one, two = drawn(keys), drawn(keys)
    a, b = varlen(*one, where), grouped(*two, where)
    assert (a - b).abs().max() < 0.02  # the kernel answers in bfloat16
    a.square().sum().backward()
    b.square().sum().backward()
    for x, y in zip(one, two):
        assert (x.grad - y.grad).norm() < 0.02 * y.grad.norm()  # type: ignore[union-attr,operator]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen has no CPU kernel")
@pytest.mark.parametrize("keys", [LENGTHS, WORDS], ids=["itself", "text"])
def test_varlen_and_grouped_agree_on_a_gpu(keys: list[int]) -> None:
    where = segments(LENGTHS, keys, "cuda")
    one, two = drawn(keys, "cuda"), drawn(keys, "cuda")
    a, b = varlen(*one, where), grouped(*two, where)
    assert (a - b).abs().max() < 0.03
    a.square().sum().backward()
    b.square().sum().backward()
    for x, y in zip(one, two):
        assert (x.grad - y.grad).norm() < 0.03 * y.grad.norm()  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_builds_with_the_parameters_that_its_width_and_depth_say(size: str) -> None:
    text = TextConfig(vocabulary=300, width=24, heads=2)
    with torch.device("meta"):
        made = DiT(ModelConfig(size=size, text=text), CHANNELS, train_tokenizer(["a"], text))
    depth, width, _ = SIZES[size]
    block = (4 + 8 + 6 + 2) * width**2 + 2 * text.width * width  # attention, MLP, modulation, queries and out of cross
    ends = (256 + width) * width + 2 * width * width
    small = num_parameters(made.text) + 24 * width * (depth + 2) + 2 * CHANNELS * width
    assert num_parameters(made) == pytest.approx(depth * block + ends + small, rel=0.01 if width > 200 else 0.1)

"""Attention inside a pack: every sample sees itself (or its own text), never a neighbour.  One function, two backends.

`grouped` runs samples of equal length as one batched call (the CPU has no kernel for variable lengths and
FlexAttention has no CPU backward); `varlen` hands the whole pack to `torch.nn.attention.varlen` on a GPU.
In cross-attention queries are grouped by length and keys are padded inside the call to the longest of the
group, masked, so that they weigh exactly nothing.  No query is ever padded.

Legend: L tokens of the pack, G samples of a group, N heads, K head width.
Cost: one call per distinct length.  Source: NaViT, arXiv:2307.06304.
"""

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch.nn import functional

Kind = TypeVar("Kind", int, tuple[int, int, int])


@dataclasses.dataclass(frozen=True)
class Group:
    """Samples whose queries have one length."""

    queries: torch.Tensor
    """Positions in the pack, (G, length)."""
    keys: torch.Tensor
    """Positions in the keys, (G, longest); padded places point at the sample's first key."""
    mask: torch.Tensor | None
    """(G, 1, 1, longest), True where a key is real; None where no key is padded."""


@dataclasses.dataclass(frozen=True)
class Segments:
    """Where each sample of a pack begins and ends, among queries and among keys."""

    groups: tuple[Group, ...]
    restore: torch.Tensor
    """Positions that put the groups' concatenated outputs back into pack order."""
    starts_q: torch.Tensor
    starts_k: torch.Tensor
    longest_q: int
    longest_k: int


def _starts(lengths: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def samples_alike(
    kinds: Sequence[Kind], lengths: Sequence[int]
) -> tuple[dict[Kind, tuple[list[int], np.ndarray]], np.ndarray]:
    """A pack's samples by their kind, in order of kinds: members, and their positions in the pack (members, length).

    Samples of one kind are of one length.  Also returns the positions that put all of them, one after the other, back
    into pack order.
    """
    starts, found = _starts(lengths), {}
    for kind in sorted(set(kinds)):
        members = [i for i, k in enumerate(kinds) if k == kind]
        found[kind] = (members, starts[members][:, None] + np.arange(lengths[members[0]]))
    order = np.concatenate([positions.reshape(-1) for _, positions in found.values()])
    return found, np.argsort(order, kind="stable")


def segments(lengths_q: Sequence[int], lengths_k: Sequence[int], device: torch.device | str = "cpu") -> Segments:
    """Plan attention for samples of these lengths; the lists are equal for self-attention.

    Raises:
        ValueError: If the lists differ in length or a sample has no keys.
    """
    if len(lengths_q) != len(lengths_k) or not lengths_q or min(lengths_k) < 1 or min(lengths_q) < 1:
        raise ValueError(f"every sample needs queries and keys, got lengths {list(lengths_q)} and {list(lengths_k)}")
    starts_q, starts_k = _starts(lengths_q), _starts(lengths_k)
    alike, restore = samples_alike(lengths_q, lengths_q)
    groups = []
    for members, queries in alike.values():
        counts = np.array([lengths_k[i] for i in members])
        place = np.arange(counts.max())
        real = place < counts[:, None]
        keys = starts_k[members][:, None] + np.where(real, place, 0)
        mask = None if real.all() else torch.from_numpy(real[:, None, None, :]).to(device)
        groups.append(Group(torch.from_numpy(queries).to(device), torch.from_numpy(keys).to(device), mask))
    return Segments(
        tuple(groups),
        torch.from_numpy(restore).to(device),
        torch.from_numpy(starts_q).to(device, torch.int32),
        torch.from_numpy(starts_k).to(device, torch.int32),
        int(max(lengths_q)),
        int(max(lengths_k)),
    )


def attention(q_LNK: torch.Tensor, k_LNK: torch.Tensor, v_LNK: torch.Tensor, where: Segments) -> torch.Tensor:
    """Attend within samples; returns (L, N, K) in pack order."""
    if q_LNK.is_cuda:
        return varlen(q_LNK, k_LNK, v_LNK, where)
    return grouped(q_LNK, k_LNK, v_LNK, where)


def grouped(q_LNK: torch.Tensor, k_LNK: torch.Tensor, v_LNK: torch.Tensor, where: Segments) -> torch.Tensor:
    """Equal lengths as one batched call each; any device."""
    outputs = []
    for group in where.groups:
        q, k, v = _take(q_LNK, group.queries), _take(k_LNK, group.keys), _take(v_LNK, group.keys)
        o = functional.scaled_dot_product_attention(q, k, v, attn_mask=group.mask)
        outputs.append(o.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, where.restore)


def _take(x_LNK: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """(G, N, length, K); `index_select`, whose backward is repeatable and half as dear as indexing's."""
    return x_LNK.index_select(0, positions.flatten()).unflatten(0, positions.shape).transpose(1, 2)


def varlen(q_LNK: torch.Tensor, k_LNK: torch.Tensor, v_LNK: torch.Tensor, where: Segments) -> torch.Tensor:
    """The whole pack in one kernel, in bfloat16 (the kernel has no float32); GPU only."""
    from torch.nn.attention.varlen import varlen_attn  # older torch has none, and the CPU needs none

    q, k, v = (x.to(torch.bfloat16) for x in (q_LNK, k_LNK, v_LNK))
    out = varlen_attn(q, k, v, where.starts_q, where.starts_k, where.longest_q, where.longest_k)
    return out.to(q_LNK.dtype)  # type: ignore[union-attr]

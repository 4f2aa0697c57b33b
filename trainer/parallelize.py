"""How a model is spread over processes, and what each of them does of a step.

    replicate   every process holds the whole model, gradients are all-reduced (DistributedDataParallel)
    shard       every process holds a slice of each block's weights, gradients and moments (FSDP2, `fully_shard`)

A step's packs are fixed by the plan.  Here they are dealt to processes by predicted operations, dearest first, so that
none waits long for another; which process computes a pack changes no loss.  Gradients are *summed* over processes and
divided by the number of samples of the whole step, which is the estimand at any world size.  Blocks may recompute
their activations in backward, and may be compiled, each on its own.

Sources: DDP arXiv:2006.15704; FSDP arXiv:2304.11277; longest-processing-time-first, Graham 1969.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigError

if TYPE_CHECKING:  # configs load without torch
    import torch
    from torch import nn

MODES = ("replicate", "shard")


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def agreed(self, value: Any) -> Any:
        """What the first process says, everywhere."""
        if self.size == 1:
            return value
        import torch.distributed as dist

        said = [value]
        dist.broadcast_object_list(said, src=0)
        return said[0]

    def gathered(self, values: list[Any]) -> list[Any]:
        """Everybody's values in one list, in the order of ranks."""
        if self.size == 1:
            return values
        import torch.distributed as dist

        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, values)
        return [v for part in every for v in part]


ALONE = World()


@contextlib.contextmanager
def joined(rank: int, size: int, meeting: str, device: str) -> Iterator[World]:
    """Join `size` processes that meet at a URL (`file://...`, `tcp://127.0.0.1:...`); leave them at the end."""
    import torch
    import torch.distributed as dist

    if device == "cuda":
        device = f"cuda:{rank % max(1, torch.cuda.device_count())}"
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size)
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()


def deal(costs: Sequence[float], ranks: int) -> list[list[int]]:
    """Which packs each process computes, as positions in ascending order: dearest first, to whom has least to do.

    No process gets more than its share of packs rounded up, so counts are equal where they divide.

    Raises:
        ConfigError: If there are fewer packs than processes.
    """
    if len(costs) < ranks:
        raise ConfigError(
            f"a step has {len(costs)} pack(s) and there are {ranks} processes: "
            f"set dit.plan.packs_per_step to {ranks} or more, or launch fewer workers"
        )
    most = -(-len(costs) // ranks)
    dealt: list[list[int]] = [[] for _ in range(ranks)]
    load = [0.0] * ranks
    for i in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        rank = min((r for r in range(ranks) if len(dealt[r]) < most), key=lambda r: (load[r], len(dealt[r]), r))
        dealt[rank].append(i)
        load[rank] += costs[i]
    return [sorted(mine) for mine in dealt]


def check_packs(packs: int, ranks: int, mode: str) -> None:
    """Whether a step's packs can be dealt to so many processes.

    Raises:
        ConfigError: If one would have nothing to do, or shards would wait for each other.
    """
    deal([1.0] * packs, ranks)
    if mode == "shard" and packs % ranks:
        raise ConfigError(
            f"a step has {packs} packs and a sharded model {ranks} processes, which must all compute as many: "
            f"set dit.plan.packs_per_step to a multiple of {ranks}"
        )


def idle_share(costs: Sequence[float], ranks: int) -> float:
    """Share of all processes' time in which they wait for the one with most to do."""
    loads = [sum(costs[i] for i in mine) for mine in deal(costs, ranks)]
    return 1 - sum(loads) / (ranks * max(loads))


@dataclasses.dataclass(frozen=True)
class Spread:
    """A model that is spread over processes."""

    call: Any
    """What to call: the model, or its replica's wrapper."""
    model: "nn.Module"
    world: World
    mode: str

    @contextlib.contextmanager
    def backward(self, last: bool) -> Iterator[None]:
        """Around forward and backward of one pack; gradients are exchanged at the last one of a step."""
        if self.world.size == 1:
            yield
        elif self.mode == "shard":
            self.call.set_requires_gradient_sync(last)
            yield
        elif last:
            yield
        else:
            with self.call.no_sync():
                yield

    @property
    def loss_scale(self) -> float:
        """What a loss is multiplied by so that gradients come out summed: replicas average theirs."""
        return float(self.world.size) if self.mode == "replicate" else 1.0

    def whole(self, tensor: "torch.Tensor") -> "torch.Tensor":
        """All of a tensor that may be sharded; every process must ask."""
        full = getattr(tensor, "full_tensor", None)
        return full() if full else tensor


def parallelize(
    model: "nn.Module", world: World, mode: str = "replicate", recompute: bool = False, compiler: str = ""
) -> Spread:
    """Spread a model whose blocks are `model.blocks`; names of its parameters stay what they are.

    Args:
        recompute: Blocks keep only their input and compute the rest again in backward.
        compiler: `torch.compile` each block by it, with shapes left open; empty for none.
    """
    blocks: Any = model.blocks
    for block in blocks:
        if recompute:
            _recompute(block)
        if compiler:
            _compile(block, compiler, world.device)
    if world.size == 1:
        return Spread(model, model, world, mode)
    if mode == "shard":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(world.device.split(":")[0], (world.size,))
        for part in (*blocks, model):
            fully_shard(part, mesh=mesh)
            part.set_force_sum_reduction_for_comms(True)
            part.set_gradient_divide_factor(1.0)
        return Spread(model, model, world, mode)
    from torch.nn.parallel import DistributedDataParallel

    return Spread(DistributedDataParallel(model, gradient_as_bucket_view=True), model, world, mode)


def _compile(block: Any, compiler: str, device: str) -> None:
    """Attention on a CPU stays out of it, and so do convolutions: they loop over a pack's lengths or sizes, and each
    other number of them would be a program of its own (torch gives up at eight and runs the whole block uncompiled)."""
    import torch

    from trainer.model.block import Attention
    from trainer.model.local import Local

    for part in block.modules():
        if isinstance(part, Attention) and device == "cpu":
            part.attend = torch.compiler.disable(part.attend)
        if isinstance(part, Local):
            part.beside = torch.compiler.disable(part.beside)
    block.compile(dynamic=True, backend=compiler)


def _recompute(block: Any) -> None:
    from torch.utils.checkpoint import checkpoint

    forward = block.forward

    @functools.wraps(forward)
    def again(*inputs: Any) -> Any:
        import torch

        return checkpoint(forward, *inputs, use_reentrant=False) if torch.is_grad_enabled() else forward(*inputs)

    block.forward = again


def like(value: "torch.Tensor", place: "torch.Tensor") -> "torch.Tensor":
    """A whole tensor, sharded as another one is."""
    mesh = getattr(place, "device_mesh", None)
    if mesh is None:
        return value
    from torch.distributed.tensor import distribute_tensor

    placements: Any = place.placements  # type: ignore[attr-defined]
    return distribute_tensor(value, mesh, placements, src_data_rank=None)

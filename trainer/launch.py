"""Who starts the training processes: this process alone, child processes of it, or Ray Train.

    workers = 1              in this very process: a debugger works
    launcher = processes     that many child processes, which meet on loopback
    launcher = ray           Ray Train's TorchTrainer, on the cluster that RAY_ADDRESS names

How many train together changes no row of the ledger and no more than rounding of a loss, so nothing here is part of
what a checkpoint is named by.  A worker that dies takes the others with it, and all start again from the newest
snapshot, at most `max_failures` times.  Torch and Ray are imported when asked for.
"""

import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from schemas import errors
from schemas.errors import DailiesError, ModelError
from trainer.parallelize import ALONE, MODES, World, joined

Work = Callable[[World], Any]
LAUNCHERS = ("processes", "ray")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LaunchConfig:
    """On how many processes to train, and how."""

    workers: int = 1
    """Processes that train together; at most as many as packs in a step."""
    launcher: str = "processes"
    """processes (children of this one) or ray (Ray Train); of no account with one worker, unless it is ray."""
    mode: str = "replicate"
    """replicate (DDP) or shard (FSDP2: weights, gradients and moments are spread over the workers)."""
    recompute: bool = False
    """Recompute a block's activations in backward: a third more operations, a fraction of the memory."""
    compiled: bool = False
    """torch.compile each block."""
    compiler: str = "inductor"
    """torch's name of the compiler: inductor makes fast code with a C++ or Triton compiler; aot_eager and eager only
    trace, to find what does not compile."""
    max_failures: int = 2
    """How often workers that died are started again."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.max_failures < 0:
            raise ValueError("launch: workers >= 1 and max_failures >= 0 are needed")
        if self.launcher not in LAUNCHERS or self.mode not in MODES:
            raise ValueError(f"launch: launcher is one of {', '.join(LAUNCHERS)}, mode one of {', '.join(MODES)}")

    @property
    def blocks_by(self) -> str:
        """Who compiles the blocks; empty for nobody."""
        return self.compiler if self.compiled else ""

    @property
    def here(self) -> bool:
        """Whether this very process trains."""
        return self.workers == 1 and self.launcher == "processes"


def launch(work: Work, config: LaunchConfig, device: str, folder: str | os.PathLike[str]) -> None:
    """Run picklable `work` in every process of the run, and come back when all are done.

    Args:
        folder: Where all processes can write; Ray keeps its notes there.

    Raises:
        DailiesError: What a worker raised.
        ModelError: If workers died too often.
    """
    if config.here:
        work(dataclasses.replace(ALONE, device=device))
    elif config.launcher == "ray":
        _with_ray(work, config, device, os.path.join(folder, "ray"))
    else:
        _with_processes(work, config, device)


def _with_processes(work: Work, config: LaunchConfig, device: str) -> None:
    import torch.multiprocessing as processes

    for attempt in range(config.max_failures + 1):
        with tempfile.TemporaryDirectory() as meeting:
            said = processes.get_context("spawn").SimpleQueue()
            inputs = (config.workers, f"file://{meeting}/meeting", device, work, said)
            try:
                processes.start_processes(_worker, inputs, nprocs=config.workers, start_method="spawn")  # type: ignore[no-untyped-call]
                return
            except processes.ProcessRaisedException as e:
                if not said.empty():
                    raise raised_by_worker(*said.get()) from e
                raise
            except processes.ProcessExitedException as e:
                reason = f"worker {e.error_index} ended with {e.signal_name or e.exit_code}"
        if attempt < config.max_failures:
            print(f"dit: {reason}; all start again from the newest snapshot", file=sys.stderr, flush=True)
    raise ModelError(
        f"{reason}, {config.max_failures + 1} times in all; the same command goes on from the newest snapshot "
        "(a worker that is killed has often run out of memory: fewer workers, a smaller dit.plan.budget, or "
        "launch.recompute=true)"
    )


def _worker(rank: int, size: int, meeting: str, device: str, work: Work, said: Any) -> None:
    try:
        with joined(rank, size, meeting, device) as world:
            work(world)
    except DailiesError as e:
        said.put((type(e).__name__, str(e)))
        raise


def raised_by_worker(kind: str, text: str) -> DailiesError:
    """The error that a worker raised on purpose, again in this process."""
    known = getattr(errors, kind, ModelError)
    return known(text)  # type: ignore[no-any-return]


def _with_ray(work: Work, config: LaunchConfig, device: str, notes: str) -> None:
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    cuda = device.startswith("cuda")
    trainer = TorchTrainer(
        _ray_worker,
        train_loop_config={"work": work, "device": device},
        torch_config=TorchConfig(backend="nccl" if cuda else "gloo"),
        scaling_config=train.ScalingConfig(num_workers=config.workers, use_gpu=cuda),
        run_config=train.RunConfig(
            name="dit", storage_path=notes, failure_config=train.FailureConfig(max_failures=config.max_failures)
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as e:
        raise ModelError(f"Ray Train gave up: {e}; the same command goes on from the newest snapshot") from e


def _ray_worker(config: dict[str, Any]) -> None:
    from ray import train
    from ray.train.torch import get_device

    context = train.get_context()
    device = str(get_device()) if config["device"].startswith("cuda") else "cpu"
    config["work"](World(context.get_world_rank(), context.get_world_size(), device))

"""Who follows the transformer's gradients: AdamW alone, or Muon for the blocks' matrices and AdamW for the rest.

Muon turns all directions of a matrix at one pace (`muon.py`).  What is no map between features stays with AdamW, as in
other uses of it: embedding, head, text encoder, norms, convolutions over neighbours, and the modulation, which starts
at zero.  Every parameter has its state from the start, so that there is what to restore a snapshot into.
"""

import torch
from torch import nn

from schemas.errors import ConfigError
from trainer.config import OptimizerConfig
from trainer.muon import Muon

_MOMENTUM = 0.95  # Muon's own default


def optimizer_of(model: nn.Module, config: OptimizerConfig, *, sharded: bool = False) -> torch.optim.Optimizer:
    """The optimiser of a model whose blocks are `model.blocks`.

    Raises:
        ConfigError: If matrices are to be made orthogonal of which each process holds a slice.
    """
    betas = (config.betas[0], config.betas[1])
    if config.kind == "muon":
        if sharded:
            raise ConfigError(
                "muon needs whole matrices and launch.mode=shard keeps slices: set launch.mode to replicate, "
                "or dit.optimizer.kind to adamw"
            )
        muon = Muon(
            [p for name, p in model.named_parameters() if _is_map(name, p)],
            [p for name, p in model.named_parameters() if not _is_map(name, p)],
            lr=config.learning_rate,
            matrix_ratio=config.matrix_rate / config.learning_rate,
            momentum=_MOMENTUM,
            betas=betas,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
        )
        muon.begin()
        return muon
    adam = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=betas, eps=config.epsilon, weight_decay=config.weight_decay
    )
    for p in model.parameters():
        moments = {name: torch.zeros_like(p) for name in ("exp_avg", "exp_avg_sq")}
        adam.state[p] = {"step": torch.tensor(0.0), **moments}
    return adam


def _is_map(name: str, p: torch.Tensor) -> bool:
    return name.startswith("blocks.") and "modulation" not in name and p.dim() == 2

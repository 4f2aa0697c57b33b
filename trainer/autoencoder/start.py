"""Where the autoencoder's training starts: close to a linear map, so that hundreds of steps are enough.

diffusers' default start mixes every level through normalised, randomly gated convolutions, and stays at the
flat-colour solution for hundreds of steps.  Here residual branches start at zero, every other convolution
starts as an orthogonal map of channels at its centre and newest tap with little around it in space and nothing
in time, the convolutions that halve and double time start as "take the newer" and "show twice", and the
posterior starts nearly certain (log variance -6), because unit noise drowns the picture at first.  So a still
video starts as good as an image, and only motion is left to learn along time.

Sources: residual autoencoding, DC-AE arXiv:2410.10733; zero-initialised branches, Fixup arXiv:1901.09321.
"""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanAttentionBlock, WanResample, WanResidualBlock
from torch import nn

_AROUND = 0.3  # of the usual size, for taps other than the centre
_CERTAIN = -6.0


@torch.no_grad()
def near_linear(model: Any, z_dim: int) -> None:
    """Set the weights in place; draws from torch's generator."""
    zeroed = set()
    for module in model.modules():
        last = {WanResidualBlock: "conv2", WanAttentionBlock: "proj"}.get(type(module))
        if last is not None:
            layer = getattr(module, last)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
            zeroed.add(layer)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)) and module not in zeroed:
            _orthogonal_centre(module)
    for module in model.modules():
        if isinstance(module, WanResample) and hasattr(module, "time_conv"):
            _repeat_in_time(module.time_conv)
    model.quant_conv.weight[z_dim:] = 0
    model.quant_conv.bias[z_dim:] = _CERTAIN


def _orthogonal_centre(layer: nn.Conv2d | nn.Conv3d) -> None:
    """Only the newest frame counts: older ones are zero padding in an image, and would differ in a still video."""
    weight = layer.weight
    nn.init.kaiming_normal_(weight, nonlinearity="linear")
    weight *= _AROUND
    if weight.dim() == 5:
        weight[:, :, :-1] = 0
    centre = weight[..., weight.shape[-2] // 2, weight.shape[-1] // 2]
    centre = centre[..., -1] if weight.dim() == 5 else centre
    centre.copy_(nn.init.orthogonal_(torch.empty_like(centre)))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _repeat_in_time(layer: nn.Conv3d) -> None:
    """Halving keeps the newest frame; doubling (twice the channels out) shows each frame twice."""
    outputs, inputs = layer.weight.shape[:2]
    nn.init.zeros_(layer.weight)
    layer.weight[:, :, -1, 0, 0] = torch.eye(inputs).repeat(outputs // inputs, 1)

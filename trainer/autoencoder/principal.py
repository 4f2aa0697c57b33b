"""A start from the clips themselves: the autoencoder begins as their principal components, and training refines that.

With its residual branches at zero the network is a chain of linear maps around two normalised heads.  The encoder's
are set from the covariance of what reaches each of them: the leading components of 2 x 2 blocks where the picture is
halved, means and the strongest differences of two frames where time is, and at the end whitened components.  The
decoder's follow by least squares, layer after layer, each towards the features that the encoder had at that place.
What a head normalises lies on a constant large enough that normalising and SiLU hardly bend it.  Channels that are
left over start at zero with small weights behind them, so that they can be learned.

So step 0 stands where hundreds of steps from `start.py` end, and every latent channel is in use, of which a random
start leaves a third idle (docs/log.md).  It holds for the plain three-level shape of `AutoencoderKLWan` (`fits`); other
shapes begin near linear.  Cost: about seven CPU seconds.
Sources: principal components as the optimum of linear autoencoders, Baldi and Hornik 1989; `start.py` for the rest.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl_wan import WanResample, patchify
from torch.nn import functional

from trainer.autoencoder import whole
from trainer.autoencoder.model import to_tensor

_OFFSET, _CONSTANT = 4.0, 8.0  # where heads work: components around 4 beside channels of 8
_BEHIND = 0.1  # size of weights behind channels that start at zero
_CLIPS = 64
Tensors = list[torch.Tensor]


def fits(model: Any) -> bool:
    """Whether the model has the shape that this start is for."""
    c = model.config
    dims = [c.base_dim * m for m in c.dim_mult]
    folded = 3 * (c.patch_size or 1) ** 2
    return (
        not c.is_residual
        and len(dims) == 3
        and list(c.temperal_downsample) == [True, True]
        and (c.decoder_base_dim or c.base_dim) == c.base_dim
        and dims[0] > folded
        and dims[2] > c.z_dim
        and dims[1] <= dims[2]
        and dims[0] <= min(dims[2] // 2, dims[1])
    )


@torch.no_grad()
def from_components(model: Any, clips: Sequence[np.ndarray]) -> None:
    """Set the weights in place, after `near_linear`; draws from torch's generator.

    Args:
        clips: Pictures (time, height, width, 3) uint8; the first 64 are looked at.
    """
    pixels: Tensors = []
    for clip in clips[:_CLIPS]:
        video = to_tensor(clip)[None]
        folded = video if model.config.patch_size is None else patchify(video, patch_size=model.config.patch_size)
        pixels.append(whole._flat(folded))
    latents, spatial, temporal = _encoder(model, pixels)
    _decoder(model, latents, pixels, spatial, temporal)


def _encoder(model: Any, pixels: Tensors) -> tuple[Tensors, list[Tensors], list[Tensors]]:
    """Set the encoder; returns latents, and features of each level before and after time is halved."""
    encoder, z_dim = model.encoder, model.config.z_dim
    halvings = [b for b in encoder.down_blocks if isinstance(b, WanResample)]
    wider = [b.conv_shortcut for b in encoder.down_blocks if not isinstance(b, WanResample)]
    spatial, temporal = [], []
    _set(encoder.conv_in, *_components(pixels, encoder.conv_in.weight.shape[0]))
    x = [_through(encoder.conv_in, y) for y in pixels]
    for widening, halving in zip(wider, halvings):
        _widen(widening)
        x = [_through(widening, y) for y in x]
        weight, bias = _components([functional.pixel_unshuffle(y, 2) for y in x], halving.dim)
        _halve(halving.resample[1], weight, bias, x)
        spatial.append([halving.resample(y) for y in x])
        _means(halving.time_conv, spatial[-1])
        x = [_once(halving.time_conv, y) for y in spatial[-1]]
        temporal.append(x)
    rows, bias = _components(x, z_dim, white=True)
    _set(wider[2], rows, bias + _OFFSET)
    wider[2].bias[z_dim:] = _CONSTANT
    head = [functional.silu(whole._norm(_through(wider[2], y), encoder.norm_out)) for y in x]
    _set(encoder.conv_out, *_least_squares(head, [functional.conv2d(y, rows[:, :, None, None], bias) for y in x]))
    for layer in (model.quant_conv, model.post_quant_conv):
        layer.weight.zero_()
        layer.weight[:z_dim, :z_dim, 0, 0, 0] = torch.eye(z_dim)
        layer.bias[:z_dim] = 0
    return [_through(encoder.conv_out, y)[:, :z_dim] for y in head], spatial, temporal


def _decoder(
    model: Any, latents: Tensors, pixels: Tensors, spatial: Sequence[Tensors], temporal: Sequence[Tensors]
) -> None:
    """Set the decoder, each layer towards what the encoder had there."""
    decoder = model.decoder
    _set(decoder.conv_in, *_least_squares(latents, temporal[1]))
    x = [_through(decoder.conv_in, y) for y in latents]
    for block, frames, finer in zip(decoder.up_blocks, spatial[::-1], (temporal[0], [p + _OFFSET for p in pixels])):
        widening, layer = block.resnets[0].conv_shortcut, block.upsamplers[0]
        _widen(widening)
        x = [_through(widening, y) for y in x]
        _double(layer.time_conv, x, frames)
        larger = [layer.resample[0](_twice(layer.time_conv, y)) for y in x]
        _fit_around(layer.resample[1], larger, finer)
        if block is decoder.up_blocks[1]:
            layer.resample[1].bias[finer[0].shape[1] :] = _CONSTANT
        x = [layer.resample[1](y) for y in larger]
    _fit_around(decoder.conv_out, [functional.silu(whole._norm(y, decoder.norm_out)) for y in x], pixels)


def _through(layer: Any, x_FCHW: torch.Tensor) -> torch.Tensor:
    """One clip through a causal convolution."""
    return x_FCHW if isinstance(layer, torch.nn.Identity) else whole._causal(x_FCHW, layer, len(x_FCHW))


def _fit_around(layer: Any, xs: Tensors, ys: Tensors) -> None:
    """A 3 x 3 kernel by least squares."""
    wide = [functional.unfold(x, 3, padding=1).unflatten(2, x.shape[-2:]) for x in xs]
    weight, bias = _least_squares(wide, ys)
    _set(layer, weight.unflatten(1, (-1, 3, 3)), bias)


def _rows(x_FCHW: torch.Tensor) -> torch.Tensor:
    return x_FCHW.movedim(1, -1).flatten(0, -2).double()


def _components(xs: Tensors, count: int, *, white: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Up to `count` leading components (component, channel) and the bias that centres them; `white`: unit variance."""
    n = sum(x.numel() // x.shape[1] for x in xs)
    mean = torch.stack([_rows(x).sum(0) for x in xs]).sum(0) / n
    gram = torch.stack([_rows(x).T @ _rows(x) for x in xs]).sum(0) / n - torch.outer(mean, mean)
    values, vectors = torch.linalg.eigh(gram)
    values, vectors = values.flip(0)[:count], vectors.flip(1)[:, :count]
    signs = torch.where(vectors.sum(0) < 0, -1.0, 1.0)  # an eigenvector's sign is anybody's choice
    rows = (vectors * signs).T
    if white:
        size = values.clamp_min(0).sqrt()
        rows = rows / size.clamp_min(0.02 * float(size[0]))[:, None]
    return rows.float(), (-rows @ mean).float()


def _least_squares(xs: Tensors, ys: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (output, input) and bias that take xs to ys, a little ridged."""
    size = xs[0].shape[1]
    gram = torch.zeros(size + 1, size + 1, dtype=torch.float64)
    cross = torch.zeros(size + 1, ys[0].shape[1], dtype=torch.float64)
    for x, y in zip(xs, ys):
        one = functional.pad(_rows(x), (0, 1), value=1.0)
        gram += one.T @ one
        cross += one.T @ _rows(y)
    ridge = 1e-5 * gram.diagonal().mean() * torch.eye(size + 1, dtype=torch.float64)
    solved = torch.linalg.solve(gram + ridge, cross).T.float()
    return solved[:, :-1], solved[:, -1]


def _set(layer: Any, weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Put a map into the newest tap (and the centre, if it is of one place); other outputs start at zero."""
    layer.weight.zero_()
    layer.bias.zero_()
    outputs, inputs = weight.shape[:2]
    newest = layer.weight[:, :, -1] if layer.weight.dim() == 5 else layer.weight
    if weight.dim() == 2:
        newest[:outputs, :inputs, newest.shape[2] // 2, newest.shape[3] // 2] = weight
    else:
        newest[:outputs, :inputs] = weight
    layer.bias[:outputs] = bias


def _behind(layer: Any, xs: Tensors) -> None:
    """Small weights where inputs are zero: they change nothing yet, and let what is before them learn."""
    dead = torch.stack([x.abs().sum((0, 2, 3)) for x in xs]).sum(0) == 0
    if dead.any():
        part = torch.empty(layer.weight.shape[0], int(dead.sum()), *layer.weight.shape[2:])
        layer.weight[:, dead] = _BEHIND * torch.nn.init.orthogonal_(part)


def _widen(layer: Any) -> None:
    """Keep the channels that there are."""
    if not isinstance(layer, torch.nn.Identity):
        outputs, inputs = layer.weight.shape[:2]
        _set(layer, torch.eye(min(outputs, inputs), inputs), torch.zeros(min(outputs, inputs)))


def _halve(layer: Any, weight: torch.Tensor, bias: torch.Tensor, xs: Tensors) -> None:
    """A stride-2 kernel whose first 2 x 2 taps are one block; `weight` is (output, channel * 2 * 2)."""
    block = functional.pad(weight.unflatten(1, (-1, 2, 2)), (0, 1, 0, 1))
    _set(layer, block, bias)
    _behind(layer, xs)


def _means(layer: Any, xs: Tensors) -> None:
    """Two frames to one: every channel's mean, but the weakest channels give way to the strongest differences.

    A still clip so has the features of its picture where those are kept.
    """
    pairs = [(x[1::2], x[2::2]) for x in xs if len(x) > 1]
    layer.weight.zero_()
    layer.bias.zero_()
    channels = len(layer.weight)
    both, apart = torch.zeros(channels), torch.zeros(channels)
    for a, b in pairs:
        both += (a + b).square().sum((0, 2, 3))
        apart += (a - b).square().sum((0, 2, 3))
    strong, weak = apart.argsort(descending=True), both.argsort()
    change = {int(w): int(s) for w, s in zip(weak, strong) if apart[s] > both[w] and int(w) != int(s)}
    for channel in range(channels):
        if channel in change:
            layer.weight[channel, change[channel], 1:, 0, 0] = torch.tensor([0.5, -0.5])
        else:
            layer.weight[channel, channel, 1:, 0, 0] = 0.5


def _once(layer: Any, x_FCHW: torch.Tensor) -> torch.Tensor:
    if len(x_FCHW) == 1:
        return x_FCHW
    half = functional.conv3d(x_FCHW.transpose(0, 1)[None], layer.weight, layer.bias, stride=(2, 1, 1))
    return torch.cat([x_FCHW[:1], half[0].transpose(0, 1)])


def _double(layer: Any, xs: Tensors, frames: Tensors) -> None:
    """One frame to two, by least squares towards what they were before `_means`; the first frame is never doubled."""
    late = [(x[1:], torch.cat([f[1::2], f[2::2]], dim=1)) for x, f in zip(xs, frames) if len(x) > 1]
    if not late:
        return
    weight, bias = _least_squares([x for x, _ in late], [y for _, y in late])
    inputs, kept = layer.weight.shape[1], len(bias) // 2
    layer.weight.zero_()
    layer.bias.zero_()
    for second in (0, 1):
        layer.weight[second * inputs : second * inputs + kept, :, -1, 0, 0] = weight[second * kept :][:kept]
        layer.bias[second * inputs : second * inputs + kept] = bias[second * kept :][:kept]


def _twice(layer: Any, x_FCHW: torch.Tensor) -> torch.Tensor:
    if len(x_FCHW) == 1:
        return x_FCHW
    later = whole._causal(x_FCHW[1:], layer, len(x_FCHW) - 1)
    return torch.cat([x_FCHW[:1], later.unflatten(1, (2, -1)).flatten(0, 1)])

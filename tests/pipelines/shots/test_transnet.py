"""The TransNetV2 adapter with random weights: shapes, names, windows.  Real weights were never run here."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipelines.shots import transnet
from schemas.errors import ConfigError


def pictures(num: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, 27, 48, 3), dtype=np.uint8)


def test_parameters_have_the_names_and_shapes_of_the_published_file() -> None:
    shapes = {name: tuple(value.shape) for name, value in transnet.build().state_dict().items()}
    assert shapes["SDDCNN.0.DDCNN.0.Conv3D_1.layers.0.weight"] == (32, 3, 1, 3, 3)
    assert shapes["SDDCNN.2.DDCNN.1.Conv3D_8.layers.1.weight"] == (64, 128, 3, 1, 1)
    assert shapes["SDDCNN.1.DDCNN.0.bn.running_var"] == (128,)
    assert shapes["frame_sim_layer.projection.weight"] == (128, 448)
    assert shapes["color_hist_layer.fc.weight"] == (128, 101)
    assert shapes["fc1.weight"] == (1024, 4864)
    assert shapes["cls_layer1.weight"] == shapes["cls_layer2.weight"] == (1, 1024)


@pytest.mark.parametrize("num", [1, 49, 50, 51, 130])
def test_windows_give_each_frame_once_with_its_neighbours(num: int) -> None:
    frames = np.zeros((num, 1, 1, 1), np.int64) + np.arange(num)[:, None, None, None]
    given = []
    for window, fresh in transnet._windows(iter(frames)):
        assert len(window) == 100
        middle = window[25:75].ravel()[:fresh]
        given += middle.tolist()
        around = np.clip(np.arange(middle[0] - 25, middle[0] + 75), 0, num - 1)
        assert window.ravel().tolist() == around.tolist()
    assert given == list(range(num))


def test_weights_load_by_path_and_a_curve_has_one_probability_per_frame(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = transnet.build()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    save_file(weights, tmp_path / "w.safetensors")
    torch.save(weights, tmp_path / "w.pth")
    frames = pictures(40)
    curves = [
        transnet.boundary_curve(transnet.load(str(tmp_path / n)), iter(frames)) for n in ("w.safetensors", "w.pth")
    ]
    assert curves[0].shape == (40,)
    assert (curves[0] == curves[1]).all()
    assert ((curves[0] > 0) & (curves[0] < 1)).all()
    assert transnet.boundary_curve(model, []).shape == (0,)


def test_what_is_no_such_file_is_said_in_one_line(tmp_path: Path) -> None:
    save_file({"fc1.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    for name in ("absent.pth", "other.safetensors"):
        with pytest.raises(ConfigError, match="TransNetV2 weights") as caught:
            transnet.load(str(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_alike_frames_are_more_alike_than_others() -> None:
    """The neighbourhood that a frame is compared with has itself in its middle, and nothing beyond the window."""
    model = transnet.build()
    seen: list[torch.Tensor] = []
    model.color_hist_layer.fc.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    frames = np.concatenate([np.repeat(pictures(1, 1), 50, 0), np.repeat(pictures(1, 2) // 4, 50, 0)])
    with torch.inference_mode():
        model(torch.from_numpy(frames)[None])
    (alike,) = seen
    assert alike.shape == (1, 100, 101)
    assert torch.allclose(alike[0, :, 50], torch.ones(100), atol=1e-5)
    assert alike[0, 49, 49] > 0.99 > 0.9 > alike[0, 49, 51]
    assert alike[0, 0, :50].abs().max() == 0

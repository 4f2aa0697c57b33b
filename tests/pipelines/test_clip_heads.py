"""Heads by path, in the layouts that others publish; plug-ins by name; texts out of tables."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.clip.heads import Head, auc, fit_head, is_function, load_function, read_head, write_head
from pipelines.clip.sidecars import Told, find, read_tables
from pipelines.video.source import list_files, videos_and_sidecars
from schemas.errors import ConfigError, ModelError


def laion(dim: int = 768) -> torch.nn.Module:
    """The published predictor: linear layers with dropout between them and no activation."""

    class Predictor(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(
                torch.nn.Linear(dim, 1024), torch.nn.Dropout(0.2), torch.nn.Linear(1024, 128), torch.nn.Dropout(0.2),
                torch.nn.Linear(128, 64), torch.nn.Dropout(0.1), torch.nn.Linear(64, 16), torch.nn.Linear(16, 1),
            )  # fmt: skip

    torch.manual_seed(3)
    return Predictor().eval()


def test_the_laion_mlp_reads_and_gives_what_torch_gives(tmp_path: Path) -> None:
    model = laion()
    torch.save(model.state_dict(), tmp_path / "sac+logos+ava1-l14-linearMSE.pth")
    head = read_head(str(tmp_path / "sac+logos+ava1-l14-linearMSE.pth"), 768)
    assert [w.shape for w, _ in head.layers] == [(1024, 768), (128, 1024), (64, 128), (16, 64), (1, 16)]
    x = torch.nn.functional.normalize(torch.randn(5, 768), dim=1)
    with torch.no_grad():
        want = model.layers(x)[:, 0].numpy()
    assert np.allclose(head(x.numpy()), want, atol=1e-5)


def test_the_laion_linear_layout_reads(tmp_path: Path) -> None:
    linear = torch.nn.Linear(512, 1)
    torch.save(linear.state_dict(), tmp_path / "sa_0_4_vit_b_32_linear.pth")
    head = read_head(str(tmp_path / "sa_0_4_vit_b_32_linear.pth"), 512)
    x = torch.randn(3, 512)
    assert np.allclose(head(x.numpy()), linear(x)[:, 0].detach().numpy(), atol=1e-5)


def test_activations_are_named_in_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    layers = ((rng.normal(size=(6, 4)), rng.normal(size=6)), (rng.normal(size=(1, 6)), rng.normal(size=1)))
    head = Head(layers, "relu")
    write_head(head, str(tmp_path / "h.safetensors"), {"knows": "x"})
    again = read_head(str(tmp_path / "h.safetensors"), 4)
    x = rng.normal(size=(7, 4))
    assert again.activation == "relu"
    assert np.allclose(again(x), head(x), atol=1e-4)
    hidden = np.maximum(x @ layers[0][0].T + layers[0][1], 0)
    assert np.allclose(head(x), (hidden @ layers[1][0].T + layers[1][1])[:, 0])


class _Runs:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('the pickle ran')",))


def test_what_is_no_head_is_said_and_a_pickle_never_runs(tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(_Runs()))
    (tmp_path / "text.pth").write_text("hello")
    torch.save(torch.nn.Linear(512, 2).state_dict(), tmp_path / "two.pth")
    torch.save({}, tmp_path / "empty.pth")
    for name, says in (
        ("evil.pth", "does not read"),
        ("text.pth", "does not read"),
        ("absent.safetensors", "does not read"),
        ("two.pth", "ends in one number"),
        ("empty.pth", "no 2-d weight"),
    ):
        with pytest.raises(ModelError, match=says):
            read_head(str(tmp_path / name), 512)
    torch.save(torch.nn.Linear(768, 1).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ModelError, match=r"768 numbers.*gives 512.*clip\.model"):
        read_head(str(tmp_path / "other.pth"), 512)


def test_a_fitted_head_tells_what_can_be_told() -> None:
    rng = np.random.default_rng(2)
    good = rng.normal(size=(200, 16)) + np.eye(16)[0] * 2
    bad = rng.normal(size=(200, 16))
    head = fit_head(np.concatenate([good, bad]).astype(np.float32), np.array([7.0] * 200 + [3.0] * 200))
    assert auc(head(good), head(bad)) > 0.85
    assert auc(head(bad), head(bad)) == 0.5


def test_plug_ins_are_functions_on_the_path() -> None:
    assert is_function("statistics:mean")
    assert not is_function("heads/laion.pth")
    assert load_function("statistics:mean")([1.0, 3.0]) == 2.0  # type: ignore[list-item]
    for wrong in ("no_such_module:f", "statistics:no_such", "statistics:__doc__"):
        with pytest.raises(ConfigError, match="plug-in"):
            load_function(wrong)


def test_texts_come_out_of_tables(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "all.csv").write_text(
        'path,text,license\na.mp4,"two dogs, running",CC0\nsub/b.mp4,from above,\n/data/set/c.mp4,absolute,\nd,stem,\n'
    )
    (tmp_path / "sub" / "near.csv").write_text("\ufeffVideo,Caption\nb.mp4,from beside\n")
    (tmp_path / "cuts.csv").write_text("file,frame_index\na.mp4,4\n")
    (tmp_path / "broken.csv").write_bytes(b"path,text\n\xff\xfe\x00,\x00\n")
    _, sidecars = videos_and_sidecars(list_files(str(tmp_path)))
    told = read_tables(str(tmp_path), sidecars)
    assert find(told, "a.mp4") == Told("two dogs, running", "CC0")
    assert find(told, "sub/b.mp4") == Told("from beside", "")
    assert find(told, "c.mp4") == Told("absolute", "")
    assert find(told, "d.webm") == Told("stem", "")
    assert find(told, "e.mp4") is None

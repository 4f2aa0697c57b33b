"""Exports, read back by the libraries that they are for."""

import csv
import dataclasses
import hashlib
import json
import shutil
import tarfile
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestration.cli import main
from pipelines.exports import FORMATS
from pipelines.exports.base import ExportConfig, Sample, export
from pipelines.exports.webdataset import plan
from pipelines.manifest.stage import freeze
from schemas.errors import UsageError
from schemas.manifest import MANIFEST, ManifestRow
from schemas.store import Store
from tests.videos import decode_all, make_video, shot

NAMES = [f"{i:032x}" for i in range(1, 7)]
BY_NAME = {f.name: f for f in FORMATS}


def clip_row(store: Store, name: str, number: int) -> dict[str, Any]:
    path = f"blobs/clips/{name[:2]}/{name}.mp4"
    make_video(Path(store.at(path)), shot(number, 8 + number), 25)
    row = ManifestRow(
        clip_id=name, manifest="", video_id="v", batch="b", source=f"/somewhere/secret/{number}.mov", start_s=0.0,
        end_s=1.0, path=path, width=160, height=96, fps=25.0, num_frames=8 + number, short=f"Pan {number}.",
        dense=f'A slow pan, "{number}",\nover a plaça.', fields=None, caption_model="m",  # type: ignore[arg-type]
        scores=json.dumps({"motion.mean": number / 10}), weight=1.0, licence="CC0-1.0", policy="p",
    )  # fmt: skip
    fields = {"subjects": [], "relation": "", "events": [], "camera": "pan", "background": "place"}
    return {**{f.name: getattr(row, f.name) for f in dataclasses.fields(row)}, "fields": fields}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A root with two manifests: all clips, and the first two."""
    store = Store(tmp_path_factory.mktemp("exports") / "root").create()
    rows = [clip_row(store, name, number) for number, name in enumerate(NAMES)]
    few, _ = freeze(store, rows[:2], {"policy": "p"})
    full, table = freeze(store, rows, {"policy": "p"})
    store.commit(MANIFEST, table)
    return Path(store.path), [full, few]


@pytest.fixture
def store(made: tuple[Path, list[str]]) -> Store:
    return Store(made[0])


def written(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file()]
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_webdataset_reads_the_tars(store: Store, tmp_path: Path) -> None:
    found = export(BY_NAME["webdataset"], store, None, str(tmp_path / "w"), ExportConfig(shard_bytes=30_000))
    tars = sorted(str(p) for p in (tmp_path / "w").glob("*.tar"))
    assert (found.clips, found.files, found.left_out) == (6, len(tars), {})
    assert 1 < len(tars) < 6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own
        import webdataset

        samples = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False))
    assert [s["__key__"] for s in samples] == NAMES
    assert samples[3]["txt"].decode() == 'A slow pan, "3",\nover a plaça.'
    about = json.loads(samples[3]["json"])
    assert (about["num_frames"], about["scores"], about["source"]) == (11, {"motion.mean": 0.3}, "3.mov")
    (tmp_path / "x.mp4").write_bytes(samples[3]["mp4"])
    assert len(decode_all(tmp_path / "x.mp4")) == 11


def test_the_index_lists_every_tar_with_its_digest(store: Store, tmp_path: Path) -> None:
    export(BY_NAME["webdataset"], store, None, str(tmp_path / "w"), ExportConfig(shard_bytes=30_000, text="short"))
    index = json.loads((tmp_path / "w" / "index.json").read_text())
    assert index["__kind__"] == "wids-shard-index-v1"
    assert sum(s["nsamples"] for s in index["shardlist"]) == 6
    for shard in index["shardlist"]:
        data = (tmp_path / "w" / shard["url"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["filesize"], shard["sha256"])


def test_datasets_reads_the_videofolder(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    export(BY_NAME["videofolder"], store, None, str(tmp_path / "v"), ExportConfig())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        data = datasets.load_dataset("videofolder", data_dir=str(tmp_path / "v"), cache_dir=str(tmp_path / "cache"))
        rows = list(data["train"].cast_column("video", datasets.Video(decode=False)))
    assert sorted(r["clip_id"] for r in rows) == NAMES
    row = next(r for r in rows if r["clip_id"] == NAMES[4])
    assert (row["text"], row["num_frames"], row["licence"]) == ('A slow pan, "4",\nover a plaça.', 12, "CC0-1.0")
    assert len(decode_all(Path(row["video"]["path"]))) == 12


def test_pandas_reads_open_soras_table(store: Store, tmp_path: Path) -> None:
    export(BY_NAME["opensora"], store, None, str(tmp_path / "o"), ExportConfig(text="short"))
    table = pd.read_csv(tmp_path / "o" / "videos.csv")
    assert list(table.columns)[:8] == [
        "path", "text", "num_frames", "fps", "height", "width", "aspect_ratio", "resolution",
    ]  # fmt: skip
    row = table.iloc[2].to_dict()
    assert (row["text"], row["num_frames"], row["aspect_ratio"], row["resolution"]) == ("Pan 2.", 10, 0.6, 15360)
    assert len(decode_all(Path(row["path"]))) == 10
    assert Path(row["path"]).samefile(store.at(f"blobs/clips/00/{NAMES[2]}.mp4"))  # linked, not copied


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_equal_input_gives_equal_bytes_and_a_second_run_writes_no_clip(
    store: Store, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ExportConfig(shard_bytes=30_000, copy=True)
    first = export(BY_NAME[name], store, None, str(tmp_path / "a"), config)
    before = written(tmp_path / "a")
    again = export(BY_NAME[name], store, None, str(tmp_path / "a"), config)
    assert (first.reused, again.reused) == (0, again.files)
    shutil.move(tmp_path / "a", tmp_path / "moved")
    export(BY_NAME[name], store, None, str(tmp_path / "a"), config)
    assert written(tmp_path / "a") == before == written(tmp_path / "moved")


@pytest.mark.parametrize("name", sorted(BY_NAME))
@pytest.mark.parametrize("calls", [1, 3])
def test_an_interrupted_export_goes_on_and_ends_the_same(
    store: Store, tmp_path: Path, name: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    config, replace, left = ExportConfig(shard_bytes=30_000, copy=True), os.replace, [calls + 1]
    export(BY_NAME[name], store, None, str(tmp_path / "whole"), config)
    want = written(tmp_path / "whole")
    shutil.rmtree(tmp_path / "whole")

    def dies(a: Any, b: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        replace(a, b)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dies)
        with pytest.raises(KeyboardInterrupt):
            export(BY_NAME[name], store, None, str(tmp_path / "whole"), config)
    export(BY_NAME[name], store, None, str(tmp_path / "whole"), config)
    assert {k: v for k, v in written(tmp_path / "whole").items() if not k.endswith(".part")} == want


def test_a_clip_whose_file_is_gone_is_named(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.path, tmp_path / "root")
    other = Store(tmp_path / "root")
    Path(other.at(f"blobs/clips/00/{NAMES[1]}.mp4")).unlink()
    found = export(BY_NAME["webdataset"], other, None, str(tmp_path / "w"), ExportConfig())
    assert found.clips == 5
    assert list(found.left_out) == [NAMES[1]]
    assert json.loads((tmp_path / "w" / "left_out.json").read_text())[0]["reason"].endswith("is not there")


def test_two_exports_do_not_mix_in_one_folder(store: Store, made: tuple[Path, list[str]], tmp_path: Path) -> None:
    export(BY_NAME["opensora"], store, made[1][1][:9], str(tmp_path / "x"), ExportConfig())
    assert len((tmp_path / "x" / "videos.csv").read_text().splitlines()) >= 3
    with pytest.raises(UsageError, match="holds another export"):
        export(BY_NAME["opensora"], store, None, str(tmp_path / "x"), ExportConfig())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="is not empty"):
        export(BY_NAME["opensora"], store, None, str(tmp_path / "mine"), ExportConfig())
    with pytest.raises(UsageError, match="no manifest begins"):
        export(BY_NAME["opensora"], store, "zz", str(tmp_path / "y"), ExportConfig())


def test_a_tar_is_never_larger_than_asked_unless_one_clip_is() -> None:
    samples = [Sample({"clip_id": str(i), "dense": "x"}, size) for i, size in enumerate((10, 9000, 500, 500, 500))]
    shards = plan(samples, ExportConfig(shard_bytes=8192))
    assert [[s.name for s in shard] for shard in shards] == [["0"], ["1"], ["2", "3"], ["4"]]
    assert plan([], ExportConfig()) == []


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["export", *words, "--json"])
    out = capsys.readouterr().out
    return code, json.loads(out) if out else {}


def test_the_command(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("webdataset", "--root", store.root, "--to", str(tmp_path / "w"), "--shard-mb", "0.03")
    code, found = command(capsys, *words)
    assert (code, found["clips"], found["left_out"]) == (0, 6, {})
    members = []
    for path in sorted((tmp_path / "w").glob("*.tar")):
        with tarfile.open(path) as tar:
            members += tar.getmembers()
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}
    assert command(capsys, *words[:-1], "-1")[0] == 2
    assert command(capsys, "opensora", "--root", store.root, "--to", str(tmp_path / "o"), "--manifest", "no")[0] == 2
    with open(tmp_path / "blocked", "w") as f:
        f.write("a file")
    assert command(capsys, "opensora", "--root", store.root, "--to", str(tmp_path / "blocked" / "x"))[0] == 2


def test_an_empty_manifest_is_an_empty_export(tmp_path: Path) -> None:
    store = Store(tmp_path / "root").create()
    name, _ = freeze(store, [], {"policy": "p"})
    for kind in FORMATS:
        found = export(kind, store, name, str(tmp_path / kind.name), ExportConfig())
        assert found.clips == 0
    with open(tmp_path / "opensora" / "videos.csv", newline="") as f:
        assert len(list(csv.reader(f))) == 1


def test_wrong_settings_raise() -> None:
    for wrong in ({"text": "long"}, {"shard_bytes": 0}):
        with pytest.raises(ValueError, match=r"text|shard_bytes"):
            ExportConfig(**wrong)  # type: ignore[arg-type]

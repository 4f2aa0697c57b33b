"""Diff of two manifests, and a video that leaves a root without a trace but for what is listed."""

import dataclasses
import json
import posixpath
from pathlib import Path
from typing import Any

import pytest

from orchestration import cli, rooms
from pipelines.manifest import diff as manifest_diff
from pipelines.manifest import forget
from pipelines.manifest.stage import freeze
from pipelines.policy.rules import Rule
from schemas.captions import CAPTIONS
from schemas.clips import CLIP_FILES, CLIPS
from schemas.errors import UsageError
from schemas.labels import Labelled, append, standing_labels
from schemas.manifest import MANIFEST
from schemas.scores import DUPLICATES
from schemas.shots import SHOTS
from schemas.store import Store
from schemas.videos import FRAMES, VIDEOS
from tests.orchestration import films
from tests.pipelines import boards

OLD = (
    Rule(name="blur", column="score_blur.edge", min=0.1, reason="r"),
    Rule(name="dark", column="score_luma.bright", min=0.2, reason="r"),
)
NEW = (dataclasses.replace(OLD[0], min=0.5), Rule(name="text", column="score_text.area", max=0.1, reason="r"))


def frozen(store: Store, rules: tuple[Rule, ...], batches: list[str], *rows: dict[str, Any]) -> str:
    """A manifest of rows given as (clip, blur, and more)."""
    filled = []
    for r in rows:
        scores = json.dumps({"score_blur.edge": r.pop("blur"), "score_luma.bright": r.pop("bright", 0.9)})
        usual = {"batch": "films", "num_frames": 90, "fps": 25.0, "source": "x/a.mp4", "scores": scores}
        filled.append(films.row(MANIFEST, **{**usual, **r}))
    facts = {"policy": str(rules), "rules": [dataclasses.asdict(r) for r in rules], "batches": batches}
    return freeze(store, filled, facts)[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return films.root(tmp_path / "root")


def test_each_clip_that_came_or_went_has_its_reason(store: Store) -> None:
    clips = {"kept": 0.9, "blurred": 0.3, films.REJECTED: 0.9, "gone": 0.9}
    older = frozen(
        store, OLD, ["films", "other"],
        *[{"clip_id": c, "blur": b, "dense": "old"} for c, b in clips.items()],
        {"clip_id": "elsewhere", "blur": 0.9, "batch": "other"},
    )  # fmt: skip
    now = {"clip_id": "kept", "blur": 0.95, "dense": "new"}, {"clip_id": "was_dark", "blur": 0.9, "bright": 0.1}
    newer = frozen(store, NEW, ["films"], *now)
    (clip,), scores = boards.random_clips(1, 1)
    short = dataclasses.replace(clip, clip_id=films.REJECTED, end_s=1.0)
    boards.commit(store, "films", [short], {films.REJECTED: {**scores[clip.clip_id], "score_duration.seconds": 1.0}})
    found = manifest_diff.diff(store, older[:8], newer)
    assert (found["older"], found["newer"]) == (older, newer)
    assert found["clips"] == {"older": 5, "newer": 2, "same": 0}
    why = found["went"]["why"]
    assert why["blurred"] == ["rule blur"]
    assert "rule short" in why[films.REJECTED], "the standing tables say what its row does not"
    assert why["gone"] == ["it is not cut any more"]
    assert why["elsewhere"] == ["batch other is not in it"]
    assert found["came"]["why"] == {"was_dark": ["rule dark"]}
    assert found["changed"]["what"] == {"kept": ["dense", "score_blur.edge"]}
    assert found["policy"] == [
        "text added: score_text.area at most 0.1",
        "dark dropped: score_luma.bright at least 0.2",
        "blur moved: score_blur.edge at least 0.1 to score_blur.edge at least 0.5",
    ]
    assert found["went"]["hours"] == pytest.approx(4 * 3.6 / 3600)
    same = manifest_diff.diff(store, newer, newer)
    assert (same["came"]["clips"], same["went"]["clips"], same["changed"]["clips"], same["policy"]) == (0, 0, 0, [])


def test_the_diff_command(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    older = frozen(store, OLD, ["films"], {"clip_id": "a", "blur": 0.3})
    newer = frozen(store, NEW, ["films"], {"clip_id": "b", "blur": 0.9})
    assert cli.main(["diff", older[:10], newer[:10], "--root", store.root]) == 0
    out = capsys.readouterr().out
    for words in ("went     1 clips", "rule blur", "blur moved"):
        assert words in out
    assert cli.main(["diff", "nothing", newer, "--root", store.root]) == 2
    assert "no manifest begins with `nothing`" in capsys.readouterr().err


def tables() -> list[Any]:
    return [t for p in rooms.all_stages() for t in p.stage.writes]


def everything(store: Store) -> bytes:
    """All bytes under a root that a person could find the video in."""
    return b"".join(
        Path(p).read_bytes() for p in sorted(store.fs.find(store.path)) if "/manifests/" not in p and "/locks/" not in p
    )


def test_a_forgotten_video_is_gone_and_what_saw_it_is_listed(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    name = frozen(store, OLD, ["films"], {"clip_id": films.KEPT, "blur": 0.9, "video_id": "v1"})
    films.commit(
        store, DUPLICATES, {"clip_id": "other", "kept_clip_id": films.KEPT}
    ) if DUPLICATES.partitioned else None
    store.write_bytes(b"film", "blobs", "clips", "aa.mp4")
    store.write_bytes(b"sheet", "blobs", "pictures", "verdicts", "films", "kept.jpg")
    store.write_bytes(b"page", "report", "report.html")
    for step, clip in (("step-1", films.KEPT), ("step-2", "elsewhere")):
        capsule = json.dumps({"samples": [{"clip_id": clip}]}).encode()
        store.write_bytes(capsule, "logs", "dit", "run", "capsules", step, "capsule.json")
        store.write_bytes(clip.encode(), "logs", "dit", "run", "capsules", step, "packs.safetensors")
    store.write_bytes(b"sheet", "logs", "dit", "run", "pictures", "step-000000001.jpg")
    part = store.part("scan", "k.clips")
    store.write_part(part, store.read(CLIPS, batch="films"))
    other = store.part("scan", "k.videos")
    store.write_part(other, store.read(VIDEOS, batch="films").slice(1))
    for clip in (films.KEPT, "elsewhere"):
        append(store, Labelled(rule="blur", clip_id=clip, label="keep"))
    assert cli.main(["forget", "a.mp4", "--root", store.root, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["removed"] is False
    assert shown["rows"]["clips [films]"] == 2
    assert shown["seen_by"]["manifests"] == [name]
    assert store.exists("blobs", "clips", "aa.mp4"), "nothing goes without --yes"
    assert cli.main(["forget", "a.mp4", "--yes", "--root", store.root]) == 0
    assert f'seen by  "manifests": {name}' in capsys.readouterr().out
    for table in (CLIPS, SHOTS, FRAMES, CAPTIONS, CLIP_FILES):
        assert store.read(table).num_rows == 0
    assert store.read(VIDEOS)["path"].to_pylist() == ["b<i>.mp4"], "other videos stay"
    for gone in (part, store.at("blobs", "clips", "aa.mp4"), store.at("report", "report.html")):
        assert not Path(gone).exists()
    assert Path(other).exists()
    left = sorted(posixpath.relpath(p, store.at("logs")) for p in store.fs.find(store.at("logs")))
    assert left == [f"dit/run/capsules/step-2/{name}" for name in ("capsule.json", "packs.safetensors")]
    assert standing_labels(store) == {("blur", "elsewhere"): "keep"}
    assert films.KEPT.encode() not in everything(store)
    with pytest.raises(UsageError, match="no video is called"):
        forget.trace(store, "a.mp4", tables())


def test_a_cut_short_forgetting_can_be_repeated(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever table the crash comes at, the video can still be found and the second run ends it."""
    count = 0
    shrink = Store.shrink

    def crash(self: Store, table: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == crash_at:
            raise KeyboardInterrupt
        return shrink(self, table, *args, **kwargs)

    crash_at = 7
    monkeypatch.setattr(Store, "shrink", crash)
    found = forget.trace(store, "v1", tables())
    with pytest.raises(KeyboardInterrupt):
        forget.forget(store, found, tables())
    again = forget.trace(store, "v1", tables())
    assert sum(again.rows.values()) < sum(found.rows.values())
    forget.forget(store, again, tables())
    assert films.KEPT.encode() not in everything(store)


def test_a_name_that_fits_two_videos_is_refused(store: Store) -> None:
    for wanted in ("nothing", "v", ""):
        with pytest.raises(UsageError, match="video"):
            forget.trace(store, wanted, tables())

"""The chain that peers run, written for comparison: every step decodes for itself, everything is encoded first.

As cosmos-curate, NeMo Curator and Open-Sora do it: find the shots (PySceneDetect's adaptive detector over OpenCV), cut
and encode every shot with ffmpeg, and then open each clip again for motion (optical flow at 2 fps), for blur and
brightness, for the frames that CLIP sees, for text and for near-duplicates.  No model runs on either side, so only
decoding, encoding and classical measures are compared; what peers do beyond that (captions' windows, previews)
is left out, in their favour.  The encoder has our own settings (x264 veryfast, crf 18, one thread).
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import call, ffmpeg, say, timed

_ENCODE = ("-c:v", "libx264", "-preset", "veryfast", "-crf", "18", "-pix_fmt", "yuv420p", "-threads", "1", "-an")


def run(path: Path, work: Path) -> dict[str, float]:
    """CPU seconds by step over one source, and how many clips it gave."""
    import cv2

    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = "threads;1"
    cv2.setNumThreads(1)
    spent = {}
    spent["detect"], scenes = timed(partial(_scenes, path))
    with tempfile.TemporaryDirectory(dir=work) as folder:
        spent["cut_and_encode"], files = timed(partial(_cut, path, scenes, Path(folder)))
        for name, step in _STEPS.items():
            spent[name] = sum(timed(partial(step, file))[0] for file in files)
    say(f"chain: {path.name}: {len(scenes)} clips, {sum(spent.values()):.1f} CPU s")
    return {**{k: round(v, 2) for k, v in spent.items()}, "clips": len(files)}


def _scenes(path: Path) -> list[tuple[float, float]]:
    from scenedetect import AdaptiveDetector, SceneManager, open_video

    video = open_video(str(path), backend="opencv")
    manager = SceneManager()
    manager.add_detector(AdaptiveDetector())
    manager.detect_scenes(video)
    return [(a.seconds, b.seconds) for a, b in manager.get_scene_list(start_in_scene=True)]


def _cut(path: Path, scenes: list[tuple[float, float]], folder: Path) -> list[Path]:
    files = []
    for number, (start, end) in enumerate(scenes):
        out = folder / f"{number:05d}.mp4"
        ask = [ffmpeg(), "-nostdin", "-loglevel", "error", "-y", "-threads", "1", "-ss", f"{start:.3f}"]
        call([*ask, "-i", str(path), "-t", f"{end - start:.3f}", "-map", "0:v:0", *_ENCODE, str(out)])
        if out.exists():
            files.append(out)
    return files


def _every(path: Path, fps: float) -> Iterator[np.ndarray]:
    """Frames at a rate; every frame is decoded, as these tools do."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    step = max(1, round((capture.get(cv2.CAP_PROP_FPS) or 25.0) / fps))
    index = 0
    while capture.grab():
        if index % step == 0:
            ok, picture = capture.retrieve()
            if ok:
                yield picture
        index += 1
    capture.release()


def _grey(picture: np.ndarray, width: int) -> Any:
    import cv2

    height = max(2, round(picture.shape[0] * width / picture.shape[1]))
    return cv2.cvtColor(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)


def _motion(path: Path) -> list[float]:
    import cv2

    found, before = [], None
    for picture in _every(path, 2):
        now = _grey(picture, 320)
        if before is not None:
            flow = cv2.calcOpticalFlowFarneback(before, now, np.empty(0), 0.5, 3, 15, 3, 5, 1.2, 0)
            found.append(float(np.linalg.norm(flow, axis=2).mean()))
        before = now
    return found


def _blur_and_luma(path: Path) -> list[tuple[float, float]]:
    import cv2

    return [(float(cv2.Laplacian(g, cv2.CV_64F).var()), float(g.mean()))
            for g in (_grey(p, 512) for p in _every(path, 2))]  # fmt: skip


def _clip_frames(path: Path) -> list[np.ndarray]:
    import cv2

    return [cv2.resize(p, (224, 224), interpolation=cv2.INTER_AREA) for p in _every(path, 1)]


def _text(path: Path) -> list[float]:
    import cv2

    kernel = np.ones((3, 9), np.uint8)
    return [float((cv2.morphologyEx(_grey(p, 640), cv2.MORPH_GRADIENT, kernel) > 60).mean()) for p in _every(path, 1)]


def _fingerprint(path: Path) -> list[np.ndarray]:
    import cv2

    return [cv2.dct(np.float32(_grey(p, 32))[:16, :32])[:8, :8] for p in _every(path, 1)]


_STEPS = {
    "motion": _motion, "blur_and_luma": _blur_and_luma, "clip_frames": _clip_frames, "text": _text,
    "near_duplicates": _fingerprint,
}  # fmt: skip


def scenedetect_cli(path: Path, work: Path) -> float:
    """CPU seconds of PySceneDetect's own command: `detect-adaptive split-video`, which encodes every shot."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        os.symlink(ffmpeg(), Path(folder, "ffmpeg"))
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
        try:
            out = Path(folder, "out")
            ask = [sys.executable, "-m", "scenedetect", "-q", "-i", str(path), "-o", str(out)]
            spent, _ = timed(partial(call, [*ask, "detect-adaptive", "split-video"]))
            say(f"scenedetect: {path.name}: {len(list(out.glob('*.mp4')))} files, {spent:.1f} CPU s")
            return round(spent, 2)
        finally:
            os.environ["PATH"] = before

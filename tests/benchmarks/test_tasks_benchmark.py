"""The verdicts of the benchmark of tasks can come out either way."""

from benchmarks.tasks import MEASURES, STRENGTHS, summary, verdicts


def found(least_db: float, seam: float, turn: float) -> dict[str, dict[str, object]]:
    rows = {"file_db": 40.0, "given_db": 24.0}
    tasks = {
        t: summary([rows, {**rows, "file_db": least_db}])
        for t in MEASURES
        if t not in ("loop", "video_to_video", "draft")
    }
    far = {f"rms_at_{s:g}": 10 * s for s in STRENGTHS} | {"rms_at_0.5": turn}
    loop = summary([{"file_seam_over_median": 0.5}, {"file_seam_over_median": seam}])
    return {**tasks, "loop": loop, "video_to_video": summary([far])}


def test_verdicts_are_of_the_worst_clip() -> None:
    good, bad = verdicts(found(28.1, 1.0, 5.0)), verdicts(found(27.9, 1.1, 9.5))
    names = ("given_frames_kept_at_28_db", "given_regions_kept_at_28_db", "loop_seam_at_most_median")
    names = (*names, "strength_moves_the_mean_distance_monotonically")
    assert [good[n] for n in names] == [True] * 4
    assert [bad[n] for n in names] == [False] * 4
    assert good["given_file_db_least"]["connect"] == 28.1

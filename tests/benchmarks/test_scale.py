"""The paper sums of docs/scale.md are what their command prints, and grow as they must."""

from pathlib import Path

from benchmarks import scale


def test_the_page_shows_what_the_command_prints() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    for line in [*scale.clips_table(), *scale.shards_table()]:
        assert line in page, line


def test_a_minute_of_full_hd_is_almost_three_million_tokens_of_attention() -> None:
    longest = scale.tokens(scale.CLIPS["60 s, 1920x1088, 24 frame/s"])
    assert longest == 361 * 68 * 120
    assert scale.attention_share(longest) > 0.99


def test_more_ranks_need_less_memory_each_and_the_same_arithmetic_in_all() -> None:
    few, many = scale.Sharded(1_000_000, 8), scale.Sharded(1_000_000, 64)
    assert many.memory_bytes == few.memory_bytes / 8
    assert many.step_s * 64 == few.step_s * 8
    assert many.all_to_all_bytes < few.all_to_all_bytes < few.ring_bytes < many.ring_bytes

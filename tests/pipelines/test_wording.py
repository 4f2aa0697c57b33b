"""The watchdog over captions barks at what a generator would learn, and at nothing else."""

from pipelines.report.wording import alarms, measure

NAMES = ("gull", "dog", "woman", "ferry", "child", "train", "kite", "horse", "crane", "cyclist")
PLACES = ("pier", "street", "field", "harbour", "market", "station", "beach", "stable", "yard", "park")
DOES = ("turns", "waits", "leaves", "rests", "runs", "sings", "falls", "glides", "slows", "shines")


def varied(count: int) -> list[str]:
    return [
        f"{NAMES[i % 10].capitalize()} {DOES[i // 10 % 10]} by {PLACES[(i * 7 + i // 10) % 10]} {i} at dusk {i * 3}."
        for i in range(count)
    ]


def test_varied_captions_raise_no_alarm() -> None:
    found = measure(varied(100))
    assert alarms(found) == []
    assert (found["words_median"], found["the_same"], found["boilerplate"]) == (8, 0, 0)


def test_talk_of_the_video_is_barked_at() -> None:
    texts = [*varied(90), *(f"The video shows {n} in {p}." for n, p in zip(NAMES, PLACES))]
    found = measure(texts)
    assert found["boilerplate"] == 0.1
    assert alarms(found) == ["10% begin with talk of the video instead of what it shows (bound 2%)"]
    assert measure(["This clip features a gull."])["boilerplate"] == 1
    assert measure(["A video camera stands on a tripod.", "The scene is dark."])["boilerplate"] == 0


def test_one_opening_copies_and_loops_across_captions_are_barked_at() -> None:
    told = alarms(measure([f"We see a {n} and then it goes on and on." for n in NAMES] * 5))
    assert any("`we see a`" in t for t in told)
    assert any("word for word" in t for t in told)
    assert any("4-grams" in t for t in told)


def test_no_captions_no_numbers() -> None:
    assert measure([]) == {}
    assert alarms({}) == []

"""Prompt expansion: every fact of a prompt is read, kept or put back, and what cannot be kept is refused."""

import dataclasses
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captioner.backends.base import ApiConfig
from captioner.config import CaptionerConfig
from captioner.expand.config import ExpandConfig, LmTraining
from captioner.expand.expander import Expander, NotKept
from captioner.expand.facts import Facts, compare, lexicon_of, read_facts, stem
from captioner.expand.lm import train_lm
from captioner.expand.measure import auc, similarity, two_sample_auc
from captioner.expand.prompts import Source, pair, some_of, source_of, swapped, typed
from captioner.expand.repair import repaired
from captioner.expand.stage import EXPANDER, open_expander, sources_of
from captioner.expand.writers import messages
from captioner.recipes import tiny
from orchestration import cli
from pipelines.execute import run_stage
from schemas.captions import Fields, Subject
from schemas.checkpoints import EXPANDER_CHECKPOINT
from schemas.errors import MissingTable, ModelError, UsageError, WorldError
from schemas.language import NUM_VARIANTS, render_dense, render_short
from schemas.manifest import MANIFEST, ManifestRow
from schemas.store import Store

COLORS, SHAPES, SIZES = ("red", "blue", "cyan", "pink"), ("circle", "square", "star"), ("small", "large")
MOTIONS = ("still", "moving left", "moving right", "moving up", "moving down")
CAMERAS, PLACES = ("static", "panning left", "zooming in"), ("night sky", "sand", "grass")


def pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def record(rng: np.random.Generator) -> Fields:
    """A record as the world has them: one to three subjects, sometimes two events."""
    subjects = [
        Subject(shape=pick(rng, SHAPES), color=pick(rng, COLORS), size=pick(rng, SIZES), motion=pick(rng, MOTIONS))
        for _ in range(int(rng.integers(1, 4)))
    ]
    events = [subjects[0].motion, "moving up"] if rng.random() < 0.2 and subjects[0].motion != "moving up" else []
    relation = pick(rng, ("left of", "above", "partly hiding")) if len(subjects) > 1 else ""
    return Fields(
        subjects=subjects, relation=relation, events=events, camera=pick(rng, CAMERAS), background=pick(rng, PLACES)
    )


RECORDS = [record(np.random.default_rng(i)) for i in range(60)]
LEXICON = lexicon_of(RECORDS)
SOURCES = [source_of(render_short(r, i), render_dense(r, i), r) for i, r in enumerate(RECORDS)]
LM = LmTraining(steps=6, batch_size=4, warmup_steps=1, width=16, layers=1, heads=2, vocabulary=300)


def one(**said: str) -> Fields:
    """A record of one subject."""
    scene = {k: said.pop(k) for k in ("camera", "background") if k in said}
    return Fields(subjects=[Subject(**said)], events=[], **scene)


@pytest.mark.parametrize(
    ("text", "record", "words"),
    [
        ("a red circle moves left", one(color="red", shape="circle", motion="moving left"), ()),
        ("Red circle, moving left!", one(color="red", shape="circle", motion="moving left"), ()),
        ("small star on sand", one(size="small", shape="star", background="sand"), ()),
        ("a still star", one(shape="star", motion="still"), ()),
        ("a star, the camera pans left", one(shape="star", camera="panning left"), ()),
        ("static camera, night sky, star", one(shape="star", camera="static", background="night sky"), ()),
        ("the camera zooms in on a star", one(shape="star", camera="zooming in"), ()),
        ("a shiny red circle", one(color="red", shape="circle"), ("shiny",)),
        ("show me a star in red", one(color="red", shape="star"), ()),
        ("a star without motion", one(shape="star"), ("without", "motion")),
        ("a purple dragon", Fields(subjects=[], events=[]), ("purple", "dragon")),
    ],
)
def test_facts_are_read_from_free_words(text: str, record: Fields, words: tuple[str, ...]) -> None:
    assert read_facts(text, LEXICON) == Facts(record, words)


def test_several_subjects_keep_what_is_theirs() -> None:
    said = read_facts("two red stars and a blue circle moving up", LEXICON).record
    red = Subject(shape="star", color="red")
    assert said.subjects == [red, red, Subject(shape="circle", color="blue", motion="moving up")]
    said = read_facts("a red star moves left then moves up, left of a square", LEXICON).record
    assert (said.events, said.relation) == (["moving left", "moving up"], "left of")


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_whatever_is_typed_is_read_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    part = some_of(record(rng), rng)
    found = read_facts(typed(part, rng), LEXICON)
    assert not found.words
    assert compare(Facts(part), found, "").lost == ()
    assert compare(found, Facts(part), "").added == ()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_what_was_lost_is_put_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    part, other = some_of(record(rng), rng), record(rng)
    prompt = typed(part, rng)
    asked = read_facts(prompt, LEXICON)
    text = repaired(prompt, asked, render_dense(other, int(rng.integers(NUM_VARIANTS))), 0)
    assert compare(asked, read_facts(text, LEXICON), text).lost == ()


@pytest.mark.parametrize("change", ["color", "shape", "size", "motion", "camera", "background", "count"])
def test_a_changed_fact_is_found(change: str) -> None:
    said = one(shape="star", color="red", size="small", motion="moving left", camera="static", background="sand")
    other = one(shape="circle", color="blue", size="large", motion="moving up", camera="zooming in", background="grass")
    asked, text = Facts(said), render_dense(said)
    assert compare(asked, read_facts(text, LEXICON), text).lost == ()
    if change == "count":
        wrong = dataclasses.replace(said, subjects=said.subjects * 2)
    elif change in ("camera", "background"):
        wrong = dataclasses.replace(said, **{change: getattr(other, change)})
    else:
        value = getattr(other.subjects[0], change)
        wrong = dataclasses.replace(said, subjects=[dataclasses.replace(said.subjects[0], **{change: value})])
    text = render_dense(wrong)
    (lost,) = compare(asked, read_facts(text, LEXICON), text).lost
    assert lost.startswith("1 subject" if change == "count" else change)


def test_swapped_captions_say_the_same_kinds_of_things() -> None:
    for i in range(50):
        rng = np.random.default_rng(i)
        own = RECORDS[i % len(RECORDS)]
        other = swapped(own, RECORDS, rng)
        assert len(other.subjects) == len(own.subjects)
        assert bool(other.events) == bool(own.events)
        prompt, dense = pair(SOURCES, i % len(SOURCES), rng, 1.0)
        assert compare(read_facts(prompt, LEXICON), read_facts(dense, LEXICON), dense).lost == ()
    free = source_of("A dog runs.", "A brown dog runs over wet grass. It rains!", None)
    assert pair([free], 0, np.random.default_rng(0), 1.0)[1] == free.dense


class Says:
    """A writer that says what it was given."""

    name = "says"

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def write(self, prompt: str, count: int, seed: int) -> list[str]:
        return self.texts[:count]


def expander(*texts: str) -> Expander:
    return Expander(Says(*texts), LEXICON, 8)


def test_the_first_draft_that_keeps_everything_is_taken_and_what_it_adds_is_said() -> None:
    wrong = render_dense(one(shape="star", color="blue", camera="static"))
    right = render_dense(one(shape="star", color="red", camera="static"))
    found = expander("a a a a a a a a a a a a a a a a a", wrong, right).expand("a red star")
    assert (found.expanded, found.added, found.repaired) == (right, ("camera: static",), ())
    assert found.drafts == 2, "a loop is no draft"


def test_where_all_captions_are_of_one_language_a_draft_must_be_too() -> None:
    loose = "A red star is moving left. The background are sand."
    assert expander(loose).expand("a red star moves left").expanded == loose
    strict = dataclasses.replace(expander(loose, "A red star is moving left."), strict=True)
    assert strict.expand("a red star moves left").expanded == "A red star is moving left."


def test_a_lie_is_mended_and_said() -> None:
    lie = render_dense(one(shape="star", color="blue", motion="moving up", background="sand"), 2)
    found = expander(lie).expand("a red star moves left")
    assert found.expanded == "We see a red star that is moving left. The background is sand."
    assert found.added == ("background: sand",)
    assert set(found.repaired) == {"color: red (the text says blue)", "motion: moving left (the text says moving up)"}


def test_words_that_no_caption_has_are_kept_as_they_are() -> None:
    scene = render_dense(one(shape="star", camera="static", background="sand"))
    found = expander(scene).expand("a purple dragon on grass")
    assert found.expanded == "A purple dragon on grass. The camera is static."
    assert "word: dragon" in found.repaired
    found = expander("Purple smoke rises. A dragon turns its head.").expand("purple dragon")
    assert found.repaired == (), "free text that has the words keeps them"


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(NotKept, match="use it as it is"):
        expander().expand("red")
    with pytest.raises(UsageError, match="empty"):
        expander().expand("  ")


class Memory:
    """A snapshot in memory."""

    data: bytes | None = None

    def load(self) -> bytes | None:
        return self.data

    def save(self, data: bytes) -> None:
        self.data = data


def test_a_stopped_training_ends_in_the_same_weights() -> None:
    config = dataclasses.replace(LM, snapshot_s=0.0)
    whole, memory = train_lm(SOURCES, config, Memory()), Memory()

    def stop(done: int, note: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_lm(SOURCES, config, memory, stop)
    again = train_lm(SOURCES, config, memory)
    assert again.losses == whole.losses
    assert all(torch.equal(a, b) for a, b in zip(again.net.state_dict().values(), whole.net.state_dict().values()))
    assert whole.losses[-1] < whole.losses[0]


def manifest_row(number: int, source: Source) -> ManifestRow:
    names = ("video_id", "batch", "source", "path", "caption_model", "scores", "licence", "policy")
    text = dict.fromkeys(names, "") | {"manifest": "m1"}
    assert source.record is not None
    return ManifestRow(
        **text, clip_id=f"c{number:03d}", start_s=0.0, end_s=1.0, width=64, height=48, fps=10.0,
        num_frames=10, short=source.short, dense=source.dense, fields=source.record, weight=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("expand")).create()
    store.commit(MANIFEST, MANIFEST.from_rows(manifest_row(i, s) for i, s in enumerate(SOURCES)))
    run_stage(EXPANDER, store, tiny())
    return store


def test_the_stage_trains_and_its_checkpoint_reads_back(root: Store, tmp_path: Path) -> None:
    (row,) = root.read(EXPANDER_CHECKPOINT).to_pylist()
    assert (row["kind"], row["trained_on"]) == ("expander", "m1")
    folder = Path(root.fetch(row["path"]))
    assert {p.suffix for p in folder.iterdir()} <= {".safetensors", ".json", ".md", ".jinja"}
    assert "| manifest | m1 |" in (folder / "README.md").read_text()
    config = tiny().expand
    one, two = (open_expander(root, config).expand("a red star moves left", seed=3) for _ in range(2))
    assert one == two
    assert one.writer == row["digest"] == folder.name
    assert not run_stage(EXPANDER, root, tiny()).computed
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-8])
    try:
        with pytest.raises(ModelError, match="train it again"):
            open_expander(root, config)
    finally:
        weights.write_bytes(whole)
    with pytest.raises(MissingTable, match="stage expander"):
        open_expander(Store(tmp_path).create(), config)


def test_retrieval_keeps_the_facts_in_the_manifests_words(root: Store) -> None:
    retrieval = open_expander(root, ExpandConfig(writer="retrieval"))
    for i in range(20):
        rng = np.random.default_rng(i)
        prompt = typed(some_of(record(rng), rng), rng)
        found = retrieval.expand(prompt, seed=i)
        assert compare(read_facts(prompt, LEXICON), read_facts(found.expanded, LEXICON), found.expanded).lost == ()
    assert sources_of(root.read(MANIFEST).to_pylist())[0].variant is not None


def test_an_llm_of_transformers_is_shown_the_manifests_captions(root: Store, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from captioner.train.tokenizer import train_tokenizer

    tokenizer = train_tokenizer([s.dense for s in SOURCES], 300)
    tokenizer.chat_template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}[assistant]"
    tokenizer.save_pretrained(str(tmp_path))
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    net = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(tokenizer), pad_token_id=0, eos_token_id=3, bos_token_id=None, **size)
    )
    net.save_pretrained(str(tmp_path), safe_serialization=True)
    config = ExpandConfig(writer="transformers", model=str(tmp_path), device="cpu", max_tokens=12, candidates=2)
    llm = open_expander(root, config)
    drafts = llm.writer.write("a red star", 2, 5)
    assert len(drafts) == 2
    assert drafts == llm.writer.write("a red star", 2, 5)
    assert llm.expand("a red star").writer == str(tmp_path)
    talk = messages("a red star", SOURCES[:2])
    assert [m["role"] for m in talk] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert talk[2]["content"] == SOURCES[0].dense
    with pytest.raises(ModelError, match="does not load"):
        open_expander(root, dataclasses.replace(config, model=str(tmp_path / "none")))


class _Handler(http.server.BaseHTTPRequestHandler):
    seen: list[dict[str, Any]]
    answers: list[tuple[int, str]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(body)
        code, said = self.answers.pop(0) if self.answers else (200, "")
        data = json.dumps({"choices": [{"message": {"content": said}, "finish_reason": "stop"}]}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[tuple[str, type[_Handler]]]:
    handler = type("Handler", (_Handler,), {"seen": [], "answers": []})
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{made.server_address[1]}/v1", handler
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_server_is_asked_again_when_busy_and_its_lies_are_mended(
    root: Store, server: tuple[str, type[_Handler]]
) -> None:
    url, handler = server
    api = ApiConfig(url=url, model="m", backoff_s=0.0)
    served = open_expander(root, ExpandConfig(writer="openai_api", api=api, candidates=2))
    lie = render_dense(one(shape="star", color="blue", camera="static"))
    handler.answers = [(429, ""), (200, lie), (200, "<|im_start|>system")]
    found = served.expand("a red star")
    assert found.expanded == render_dense(one(shape="star", color="red", camera="static"))
    assert (found.drafts, found.writer) == (1, f"m at {url}")
    talk = handler.seen[-1]["messages"]
    assert talk[-1]["content"] == "a red star"
    assert talk[2]["content"] in {s.dense for s in SOURCES}
    gone = ApiConfig(url="http://127.0.0.1:9/v1", model="m", backoff_s=0.0)
    with pytest.raises(WorldError, match="no answer"):
        open_expander(root, ExpandConfig(writer="openai_api", api=gone)).expand("a red star")


def test_the_command_shows_what_was_given_made_and_added(root: Store, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("expand", "a red star moves left", "--root", root.root, "--recipe", "tiny", "--seed", "1")
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["given"] == "a red star moves left"
    assert compare(read_facts(found["given"], LEXICON), read_facts(found["expanded"], LEXICON), "").lost == ()
    assert cli.main(words) == 0
    assert "added     " in capsys.readouterr().out
    assert cli.main(["expand", " ", "--root", root.root]) == 2


def test_the_two_sample_test_tells_what_can_be_told() -> None:
    captions = [s.dense for s in SOURCES]
    assert two_sample_auc(captions[:30], ["The video shows " + t for t in captions[30:]]) > 0.95
    assert abs(two_sample_auc(captions[:28], captions[28:56]) - 0.5) < 0.25
    assert auc(np.array([2.0, 3.0]), np.array([1.0, 2.0])) == pytest.approx(0.875)
    same = similarity(captions, RECORDS, captions, RECORDS)
    assert (same["length_ks"], same["openings_tv"], max(same["values_tv"].values())) == (0.0, 0.0, 0.0)


def test_stems_join_the_forms_of_a_verb() -> None:
    for forms in (("moves", "moving", "move"), ("pans", "panning"), ("zooms", "zooming"), ("circles", "circle")):
        assert len({stem(f) for f in forms}) == 1
    assert stem("grass") != stem("gray")


def test_configs_refuse_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="writer is one of"):
        ExpandConfig(writer="poet")
    with pytest.raises(ValueError, match="multiple of"):
        LmTraining(width=10)
    assert CaptionerConfig().expand.writer == "trained"


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_caption_whose_motion_was_struck_out_of_its_events_still_makes_pairs(seed: int, moves: bool) -> None:
    struck = Fields(
        subjects=[Subject(shape="circle", color="red", motion="moving left" if moves else "")],
        events=["moving left", "moving up"],
        background="sand",
    )
    whole = Fields(subjects=[Subject(shape="star", color="blue", size="small", motion="moving up")], events=[])
    sources = [source_of(render_short(f), render_dense(f), f) for f in (struck, whole)]
    prompt, dense = pair(sources, 0, np.random.default_rng(seed), recombined=1.0)
    assert prompt
    assert "then" in dense or "moving up" in dense


def test_values_that_do_not_go_together_are_left_with_their_own_captions() -> None:
    bike = Fields(subjects=[Subject(shape="mountain bike", color="red")], events=[])  # unsayable without a colour
    plain = Fields(subjects=[Subject(shape="circle")], events=[])
    sources = [source_of(render_short(f), render_dense(f), f) for f in (bike, plain)]
    for seed in range(20):
        assert pair(sources, 1, np.random.default_rng(seed), recombined=1.0)[1] == sources[1].dense

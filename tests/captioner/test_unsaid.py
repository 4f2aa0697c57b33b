"""What a captioner is not sure of stays unsaid: in training captions tell less, in use fields are withheld."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captioner.recipes import tiny
from captioner.train.config import TrainConfig
from captioner.train.data import example, slot_values
from captioner.train.model import Captioner
from captioner.train.tokenizer import SHORT_ID, spell, train_tokenizer
from captioner.train.unsaid import groups_of, leave_out
from schemas.captions import Fields, Subject
from schemas.language import claims_of, parse, render_dense, render_short, variant_of
from tests.captioner.worlds import pairs

CONFIG = tiny().train

WORLD = [
    Fields(
        subjects=[
            Subject(shape="star", color="red", size="small", motion="moving up"),
            Subject(shape="circle", color="blue", size="large", motion="still"),
        ],
        relation="left of",
        events=["moving up", "moving down"],
        camera="static",
        background="sand",
    ),
    Fields(
        subjects=[Subject(shape="square", color="pink", size="small", motion="still")],
        events=[],
        camera="panning left",
    ),
]


@given(
    seed=st.integers(0, 2**31),
    wording=st.integers(0, 3),
    kind=st.sampled_from(["short", "dense"]),
    which=st.integers(0, 1),
)
def test_what_is_left_out_of_a_caption_is_neither_said_nor_told(seed: int, wording: int, kind: str, which: int) -> None:
    record, names = WORLD[which], list(slot_values(WORLD))
    groups = groups_of(names)
    assert sorted(i for group in groups.values() for i in group) == list(range(len(names)))
    text, untold = leave_out(record, kind, wording, groups, np.random.default_rng(seed))
    said = parse(text)
    told = [names[i] for i in range(len(names)) if i not in untold]
    for claim in claims_of(said):
        assert claim in claims_of(record)
        name = f"{claim.field}.{claim.place}"
        slot = name if name in names else claim.field
        assert slot in told or slot not in names  # without a slot it is said by heart
    whole = parse(render_short(record, wording) if kind == "short" else render_dense(record, wording))
    assert untold or said == whole


def test_only_a_caption_that_renders_its_record_is_told_with_less() -> None:
    assert variant_of(render_dense(WORLD[0], 2), WORLD[0]) == 2
    assert variant_of(render_short(WORLD[1], 3), WORLD[1], short=True) == 3
    assert variant_of("A star, I think.", WORLD[0]) is None
    tokenizer = train_tokenizer([p.dense for p in pairs()], 300)
    free = dataclasses.replace(pairs()[0], fields=None)
    assert example(free, CONFIG.frames, tokenizer, {}).wordings == {"short": None, "dense": None}


def test_fields_that_no_head_is_sure_of_are_withheld() -> None:
    torch.manual_seed(0)
    slots = slot_values(WORLD)
    tokenizer = train_tokenizer([render_dense(r) for r in WORLD], 300)
    spelled = spell(tokenizer, [v for vs in slots.values() for v in vs])
    net = Captioner(dataclasses.replace(CONFIG.model, sure=0.999), slots, len(tokenizer), spelled).eval()
    frames = torch.randint(0, 255, (2, 4, 24, 24, 3), dtype=torch.uint8)
    with torch.no_grad():
        features, told = net.see(frames)
        assert net.unsure(features).all()  # a fresh model believes nothing firmly
        nothing = net._prefix(features, withheld=net.unsure(features))
        assert torch.equal(nothing[0, : len(slots)], nothing[1, : len(slots)])  # whatever it saw
        assert not torch.equal(told[0, : len(slots)], told[1, : len(slots)])
        unsure = net.write(frames, SHORT_ID, max_tokens=4)
        net.sure.fill_(0.0)
        assert not net.unsure(features).any()
        assert len(unsure) == len(net.write(frames, SHORT_ID, max_tokens=4)) == 2
    with pytest.raises(ValueError, match="unsaid"):
        TrainConfig(unsaid=0.0, model=dataclasses.replace(TrainConfig().model, sure=0.5))

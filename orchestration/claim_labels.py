"""`dailies label --claims` and `dailies calibrate --claims`: are captions true, as a person sees it?

The sample is drawn by a hash of (seed, clip) among the clips that the policy kept, before anything of their captions
is known, so that no caption is chosen for what it says; the same seed over the same clips gives the same sample.
Of each clip every sentence of its dense caption is asked about: does the clip bear it out?  An answer belongs to the
sentence word by word, so that a corpus that is captioned anew is asked about anew.

The report: share of sentences that hold, share of captions with a sentence that does not (hallucinated), both with
Wilson's 95 % intervals over what was answered; captions count once all their sentences are answered.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from orchestration.ask import Answer, Ask, in_every_batch
from orchestration.label_server import Session
from pipelines.policy.label_sample import Drawn
from schemas.captions import CAPTIONS, CaptionStatus
from schemas.errors import UsageError
from schemas.ids import digest
from schemas.labels import Label, standing_labels
from schemas.language import split_sentences
from schemas.store import Store
from schemas.verdicts import SELECTIONS, Verdict

SAMPLE = 40
"""Captions asked about unless another number is given."""
_KIND = "caption"


def drawn(store: Store, names: Sequence[str], count: int, seed: int) -> dict[str, str]:
    """Clip to dense caption, in the order of the sample; a clip without a caption that is ok has an empty one."""
    kept: set[str] = set()
    written: dict[str, str] = {}
    for name in names:
        selected = store.read(SELECTIONS, batch=name, columns=["clip_id", "verdict"]).to_pylist()
        kept |= {r["clip_id"] for r in selected if r["verdict"] == Verdict.KEEP}
        rows = store.read(CAPTIONS, batch=name, columns=["clip_id", "dense", "status"]).to_pylist()
        written |= {r["clip_id"]: r["dense"] for r in rows if r["status"] == CaptionStatus.OK}
    order = sorted(kept, key=lambda clip: digest("audit", seed, clip))[:count]
    return {clip: written.get(clip, "") for clip in order}


def rule_of(sentence: str) -> str:
    """What an answer about a sentence is filed under."""
    return f"{_KIND}:{digest(sentence)}"


def questions(captions: Mapping[str, str]) -> list[Drawn]:
    """One per sentence."""
    return [
        Drawn(rule=rule_of(s), clip_id=clip, score=0.0, rejected=False, stratum=s, stratum_size=len(captions))
        for clip, dense in captions.items()
        for s in dict.fromkeys(split_sentences(dense))
    ]


class ClaimSession(Session):
    """Questions about sentences instead of rules."""

    def _item(self, question: Drawn) -> dict[str, Any]:
        clip = self.clips.get(question.clip_id)
        return {
            "rule": question.rule,
            "title": f"Is this wrong of the clip?  {question.stratum}",
            "detail": f"clip {question.clip_id[:8]}, {clip.about if clip else ''}",
            "clip_id": question.clip_id,
            "frames": len(clip.jpegs) if clip else 0,
        }


def label(question: Ask, args: argparse.Namespace) -> Answer:
    """Serve the questions until interrupted."""
    from orchestration.label_commands import serve, shown

    store = question.readable()
    names = in_every_batch(question, CAPTIONS)
    asked = questions(drawn(store, names, args.sample, args.seed or 0))
    if not asked:
        raise UsageError("no kept clip has a caption yet: run `dailies caption` first")
    session = ClaimSession(store, asked, {}, shown(store, {q.clip_id for q in asked}, names))
    serve(session, args, "keys: r it is wrong, k it holds, s cannot say, u undo")
    state = session.next()
    answer = {"questions": state["all"], "answered": state["done"], "labels": store.at("labels", "labels.jsonl")}
    then = question.command("calibrate --claims")
    return Answer(answer, f"{state['done']} of {state['all']} sentences answered", then)


def calibrate(question: Ask, args: argparse.Namespace) -> Answer:
    """What the answers say of the captions that are there."""
    from captioner.evaluate import Share

    store = question.readable()
    captions = drawn(store, in_every_batch(question, CAPTIONS), args.sample, args.seed or 0)
    labels = standing_labels(store)
    right = wrong = unknown = whole = hallucinated = 0
    for clip, dense in captions.items():
        words = [labels.get((rule_of(s), clip)) for s in dict.fromkeys(split_sentences(dense))]
        right += words.count(Label.KEEP)
        wrong += words.count(Label.REJECT)
        unknown += words.count(Label.SKIP)
        if words and None not in words:
            whole += 1
            hallucinated += Label.REJECT in words
    if not right + wrong + unknown:
        raise UsageError(f"no caption is labelled: answer some with `{question.command('label --claims')}`")
    rates = {"sentences_that_hold": Share(right, right + wrong), "hallucinated_captions": Share(hallucinated, whole)}
    found: dict[str, Any] = {"cannot_say": unknown, "sample": len(captions), "seed": args.seed or 0}
    lines = []
    for name, share in rates.items():
        low, high = share.interval
        found[name] = {"rate": round(share.value, 4), "low": round(low, 4), "high": round(high, 4), "n": share.n}
        lines.append(f"{name.replace('_', ' '):<22} {share.value:.3f} [{low:.3f}, {high:.3f}]  n {share.n}")
    lines.append(f"cannot say             {unknown}")
    return Answer(found, "\n".join(lines), question.command("captioner verify-claims"))

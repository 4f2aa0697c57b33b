"""Prompt expansion, measured: facts kept, and how near expansions are to the manifest's own captions.

    python -m benchmarks.expansion ROOT

Of the manifest's captions a third is set aside.  The expander learns from the others; of each caption set aside come
two prompts, its short caption and part of what it says in free words that training never uses.  Their expansions are
held against the captions set aside: facts by `facts.compare`, on parsed records where they parse; the distribution by
`measure.similarity`.  As a floor for the two-sample test stands the same test between the captions set aside and as
many of the others.  Beside the trained model stands retrieval, which rewrites a caption that agrees best.
"""

import argparse
import dataclasses
import json
import resource
import time
from typing import Any

import numpy as np

from benchmarks.machine import keep, machine
from captioner.expand.config import ExpandConfig, LmTraining
from captioner.expand.expander import Expander, NotKept, speaks_the_language
from captioner.expand.facts import compare, lexicon_of, read_facts
from captioner.expand.lm import train_lm
from captioner.expand.measure import similarity, two_sample_auc
from captioner.expand.prompts import Source, some_of
from captioner.expand.stage import open_expander, sources_of
from captioner.expand.writers import Retrieval, Trained
from schemas.captions import Fields
from schemas.language import Unparsable, parse
from schemas.manifest import MANIFEST
from schemas.store import Store


class NoSnapshots:
    """Benchmarks begin anew."""

    def load(self) -> bytes | None:
        return None

    def save(self, data: bytes) -> None: ...


def asked(record: Fields, rng: np.random.Generator) -> str:
    """Part of a record in words that training does not use: the setting first, relative clauses, lists."""
    part = some_of(record, rng)
    what = []
    for subject in part.subjects:
        noun = f"{subject.size} {subject.shape}".strip() + (f" in {subject.color}" if subject.color else "")
        what.append(f"{noun} which is {subject.motion}" if subject.motion else noun)
    text = f" {part.relation} ".join(what) if part.relation and len(what) == 2 else " with ".join(what)
    first = f"in front of {part.background}: " if part.background else "show me "
    last = f" / camera: {part.camera}" if part.camera else ""
    return first + text + last


def record_of(text: str) -> Fields | None:
    try:
        return parse(text)
    except Unparsable:
        return None


def measure(expander: Expander, prompts: list[str], aside: list[Source], learned: set[str]) -> dict[str, Any]:
    began = resource.getrusage(resource.RUSAGE_SELF)
    made, refused = [], []
    for number, prompt in enumerate(prompts):
        try:
            made.append(expander.expand(prompt, seed=number))
        except NotKept as e:
            refused.append(str(e))
    ended = resource.getrusage(resource.RUSAGE_SELF)
    texts = [e.expanded for e in made]
    captions = [s.dense for s in aside]
    lost = [w for e in made for w in lost_of(expander, e.given, e.expanded)]
    return {
        "prompts": len(prompts),
        "first_draft_or_another_kept_all": round(sum(not e.repaired for e in made) / len(prompts), 4),
        "mended": round(sum(bool(e.repaired) for e in made) / len(prompts), 4),
        "refused": round(len(refused) / len(prompts), 4),
        "facts_lost_in_what_was_given_out": len(lost),
        "added_mean": round(float(np.mean([len(e.added) for e in made])), 2),
        "parses": round(sum(record_of(t) is not None for t in texts) / len(texts), 4),
        "copies_of_a_caption_learned_from": round(sum(t in learned for t in texts) / len(texts), 4),
        "cpu_s_per_prompt": round((ended.ru_utime - began.ru_utime) / len(prompts), 4),
        **similarity(texts, [record_of(t) for t in texts], captions, [s.record for s in aside]),
    }


def lost_of(expander: Expander, given: str, expanded: str) -> tuple[str, ...]:
    return compare(read_facts(given, expander.lexicon), read_facts(expanded, expander.lexicon), expanded).lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="a root with a manifest, such as that of `dailies demo`")
    parser.add_argument("--writer", choices=("trained", "retrieval", "both"), default="both")
    parser.add_argument(
        "--checkpoint",
        action="store_true",
        help="take the root's trained expander, which saw all captions",
    )
    parser.add_argument("--steps", type=int, default=LmTraining().steps)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompts", type=int, default=200, help="at most so many prompts")
    parser.add_argument("--keep", action="store_true", help="write benchmarks/results/expansion-<writer>.json")
    words, started = parser.parse_args(), machine()
    store = Store(words.root)
    sources = sources_of(store.read(MANIFEST, columns=["short", "dense", "fields"]).to_pylist())
    order = np.random.Generator(np.random.Philox(key=[words.seed, 7])).permutation(len(sources))
    aside = [sources[i] for i in order[: len(sources) // 3]]
    learn = [sources[i] for i in order[len(sources) // 3 :]]
    lexicon = lexicon_of([s.record for s in learn if s.record is not None])
    rng = np.random.Generator(np.random.Philox(key=[words.seed, 8]))
    prompts = [p for s in aside if s.record is not None for p in (s.short, asked(s.record, rng))][: words.prompts]
    results: dict[str, Any] = {
        "captions": len(sources),
        "learned_from": len(learn),
        "set_aside": len(aside),
        "floor_two_sample_auc": round(two_sample_auc(*([s.dense for s in x[: len(aside)]] for x in (learn, aside))), 4),
    }
    config = ExpandConfig(lm=dataclasses.replace(LmTraining(), steps=words.steps, seed=words.seed, held_out=0.0))
    expanders: dict[str, Expander] = {}
    if words.writer != "retrieval":
        expanders["trained"] = open_expander(store, config) if words.checkpoint else _trained(learn, config, results)
    if words.writer != "trained":
        expanders["retrieval"] = Expander(Retrieval(learn, lexicon), lexicon, config.candidates)
    for name, expander in expanders.items():
        results[name] = measure(expander, prompts, aside, {s.dense for s in learn})
        print(json.dumps({name: results[name]}, indent=1), flush=True)
        shown = [dataclasses.asdict(expander.expand(p, seed=1)) for p in prompts[:3]]
        results[name]["examples"] = [{k: e[k] for k in ("given", "expanded", "added", "repaired")} for e in shown]
    if words.keep:
        told = f" --writer {words.writer} --prompts {words.prompts} --seed {words.seed}"
        told += " --checkpoint" if words.checkpoint else f" --steps {words.steps}"
        results = keep(f"expansion-{words.writer}", results, f"python -m benchmarks.expansion ROOT{told}", started)
    print(json.dumps(results, indent=1))


def _trained(learn: list[Source], config: ExpandConfig, results: dict[str, Any]) -> Expander:
    began, clock = resource.getrusage(resource.RUSAGE_SELF).ru_utime, time.monotonic()
    trained = train_lm(learn, config.lm, NoSnapshots())
    results["training"] = {
        "steps": config.lm.steps,
        "cpu_s": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime - began, 1),
        "wall_s": round(time.monotonic() - clock, 1),
        "loss_last": round(float(np.mean(trained.losses[-20:])), 4),
    }
    lexicon = lexicon_of([s.record for s in learn if s.record is not None])
    return Expander(
        Trained(trained.net, trained.tokenizer, config, "benchmark"),
        lexicon,
        config.candidates,
        speaks_the_language(learn),
    )


if __name__ == "__main__":
    main()

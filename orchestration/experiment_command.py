"""`dailies experiment ...`: several small trainings that differ in one thing, and a report."""

import argparse
from collections.abc import Callable
from typing import Any

Add = Callable[..., argparse.ArgumentParser]

_COMMON = """\

Works on a root that has a manifest with captions, an autoencoder and latents (`dailies demo` leaves one). Arms are
trained one after the other in this process; finished arms and samples are kept by content under
<root>/experiments/arms, so the same command goes on where it was stopped. The report (report.json, report.md,
plot.png, sheet.jpg) is written to <root>/experiments/<name>/ and copied to --out.
"""
_CAPTIONS = """\
The recaptioning experiment of DALL-E 3: the same clips, seeds and steps, with captions told in another way in each arm;
then the same prompts, short and dense, to each of them, and the share of named attributes that the videos show.

  human-short   the source's own short text alone (what the others are compared with)
  short-95      95 % short captions, 5 % human texts
  dense-95      95 % dense captions, 5 % human texts; also known as blend-95
  blend-90, blend-80, blend-65      so many % dense captions, the rest human texts
  dense-100     dense captions alone (not by default)
"""
_SCALING = """\
The same model, clips and seed with 1, 4 and 16 times the compute. Compute grows by steps, and each arm has its own
whole schedule; operations are counted from what each step saw. Reports loss on held-out clips, the same for all arms,
against operations, and videos of the same prompts from the same noise.
"""
_FILTERS = """\
Filter policies: each arm trains on the clips whose manifest row meets an SQL condition, for the same steps. Clips to
validate on are drawn before any filter, by their ids, and are the same for all arms. One --arm alone is compared with
`all`, every clip; of several, the first is what the others are compared with.

  dailies experiment filters --arm long="end_s - start_s >= 2"
  dailies experiment filters --arm any="true" --arm moving="CAST(scores->>'score_motion.mean' AS DOUBLE) > 0.5"
"""
_FRAMING = """\
Native shapes against square crops: the same clips, seeds and steps; one arm trains on whole clips, the other on the
square in the middle of each (encoded here, by the root's autoencoder). Counts the share of videos whose subject is
whole and in frame: the native arm at native shapes and at squares, the square arm at squares, and the training clips
of both.
"""


def declare(add: Add, to: Any, lazily: Callable[[str, str], Any]) -> None:
    """Put the commands on the map."""
    captions = add(
        "captions", "which captions to train on: human, short, dense, blends", lazily("experiments.captions", "run"), to
    )
    _options(captions, _CAPTIONS)
    captions.add_argument("--arms", metavar="NAME,...", help="which, the first to compare with (default: six)")
    captions.add_argument("--prompts", type=int, default=64, help="prompts, each short and dense (default: 64)")
    scaling = add("scaling", "1x, 4x and 16x the compute at the same data", lazily("experiments.scaling", "run"), to)
    _options(scaling, _SCALING)
    scaling.add_argument("--factors", default="1,4,16", help="of the first arm's steps (default: 1,4,16)")
    scaling.add_argument("--prompts", type=int, default=32, help="prompts to make videos of (default: 32)")
    _validation(scaling)
    framing = add("framing", "native shapes against square crops", lazily("experiments.framing", "run"), to)
    _options(framing, _FRAMING)
    framing.add_argument("--prompts", type=int, default=96, help="dense prompts to make videos of (default: 96)")
    framing.add_argument("--clips", type=int, default=200, help="training clips to look at, at most (default: 200)")
    filters = add(
        "filters", "which clips to train on, by SQL over the manifest", lazily("experiments.filters", "run"), to
    )
    _options(filters, _FILTERS)
    filters.add_argument(
        "--arm",
        action="append",
        required=True,
        metavar="NAME=SQL",
        help="a condition over manifest columns; repeatable",
    )
    filters.add_argument("--prompts", type=int, default=64, help="dense prompts to make videos of (default: 64)")
    _validation(filters)


def _validation(command: argparse.ArgumentParser) -> None:
    """What is held out."""
    command.add_argument("--holdout", type=float, default=0.15, help="share of clips to validate on (default: 0.15)")
    command.add_argument("--clips", type=int, default=64, help="held-out clips at most (default: 64)")


def _options(command: argparse.ArgumentParser, description: str) -> None:
    """What all experiments share."""
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.description = description + _COMMON
    command.add_argument("--steps", type=int, help="optimiser steps of an arm (default: by its cost, see the report)")
    command.add_argument("--seeds", type=int, default=1, help="trainings of each arm, each with its seed (default: 1)")
    command.add_argument("--seed", type=int, default=0, help="the first seed, and that of the prompts (default: 0)")
    command.add_argument(
        "--dit",
        metavar="RECIPE",
        help="train the transformer of this recipe: demo, thorough, ... (default: the root's)",
    )
    command.add_argument("--threads", type=int, default=1, help="torch threads (default: 1)")
    command.add_argument("--dry-run", action="store_true", help="say which arms there would be, and their cost")
    command.add_argument("--name", help="folder of the report (default: the experiment's name)")
    command.add_argument("--out", metavar="FOLDER", help="copy the report here too")

"""`dailies sample`: a video or a picture from a prompt and what is given, with the root's current models."""

import argparse
import re

from orchestration.ask import Answer, Ask, say
from schemas.errors import UsageError

HELP = """\
Make a video (one frame: a picture) with the models of this root.

What is given decides the task; one at a time:
  nothing                                  text to video; --frames 1: text to image
  --image FILE                             set a picture in motion
  --video FILE --extend forward|backward   what comes after, or came before
  --connect FIRST SECOND                   the way from one video to another
  --fill VIDEO --gap START:END             missing seconds; --gap may be repeated
  --video FILE --inpaint X,Y,W,H|MASK      fill a hole: a box in the video's own pixels, or a mask's white part
  --edit VIDEO --region X,Y,W,H            make a region anew (--strength below 1: from its own contents)
  --video FILE --outpaint WIDTHxHEIGHT     continue beyond the edges
  --video FILE [--strength T]              make anew from the rough shape: 0.3 stays close, 0.8 keeps little
  --loop                                   a video whose end goes over into its start

Any size and length is made in whole cells and trimmed to what was asked; a size over the limit is refused with what
would fit. Given pictures come back as they were given. --draft shows half the size first; --from-draft then makes the
full size from the draft of the same seed. Files carry signed content credentials with prompt, seed, task, checkpoint
and the digests of what was given (`dailies credentials FILE`).

  dailies sample --prompt "A red square moves left." --size 96x64 --seconds 2 --seed 7
  dailies sample --prompt "It starts to rain." --image photo.jpg --seconds 3
"""


def options(sample: argparse.ArgumentParser) -> None:
    """Declare the command's own options."""
    sample.formatter_class = argparse.RawDescriptionHelpFormatter
    sample.description = HELP
    sample.add_argument("--prompt", required=True, help="what to show")
    sample.add_argument(
        "--expand", action="store_true", help="write the prompt out as a dense caption first (`dailies expand`)"
    )
    sample.add_argument(
        "--size", metavar="WIDTHxHEIGHT", help="pixels (default: the given video's shape at the size of training)"
    )
    length = sample.add_mutually_exclusive_group()
    length.add_argument("--seconds", type=float, help="length, or what is added to a video (default: 2, or 1 to add)")
    length.add_argument("--frames", type=int, help="the same in frames, at the model's frame rate")
    sample.add_argument("--seed", type=int, default=0, help="seed of the noise (default: 0)")
    sample.add_argument("--steps", type=int, help="solver steps (default: the recipe's)")
    sample.add_argument("--guidance", type=float, help="scale of text guidance, 1 is none (default: the recipe's)")
    sample.add_argument("--device", help="cpu, cuda or cuda:N (default: the recipe's)")
    given = sample.add_argument_group("what is given")
    given.add_argument("--image", metavar="FILE", help="the first picture")
    given.add_argument("--video", metavar="FILE", help="the video to extend, inpaint, outpaint or make anew")
    given.add_argument("--extend", choices=("forward", "backward"), help="add --seconds after or before --video")
    given.add_argument("--connect", nargs=2, metavar=("FIRST", "SECOND"), help="two videos, --seconds between them")
    given.add_argument("--fill", metavar="VIDEO", help="a video with gaps")
    given.add_argument("--gap", action="append", metavar="START:END", help="seconds that are missing; repeatable")
    given.add_argument("--inpaint", metavar="X,Y,W,H|MASK", help="the hole in --video")
    given.add_argument("--edit", metavar="VIDEO", help="a video of which --region is made anew")
    given.add_argument("--region", metavar="X,Y,W,H", help="in the video's own pixels")
    given.add_argument("--outpaint", metavar="WIDTHxHEIGHT", help="the larger picture")
    given.add_argument("--strength", type=float, metavar="T", help="noise level to begin from, (0, 1]")
    given.add_argument("--loop", action="store_true", help="the end goes over into the start")
    draft = sample.add_mutually_exclusive_group()
    draft.add_argument("--draft", action="store_true", help="half the width and height: quick, to choose a seed by")
    draft.add_argument("--from-draft", action="store_true", help="full size, begun from the draft of the same seed")


def sample(question: Ask, args: argparse.Namespace) -> Answer:
    """Make one video and say where it is."""
    import dataclasses

    if not args.prompt.strip():
        raise UsageError("--prompt is empty")
    wish = wish_of(args)
    store = question.readable()
    config = question.config().trainer
    changed = {k: v for k in ("steps", "guidance", "device") if (v := getattr(args, k)) is not None}
    try:
        sampling = dataclasses.replace(config.sampling, **changed)
    except ValueError as e:
        raise UsageError(str(e)) from e
    from trainer.on_demand import as_text, sample_one

    expansion = None
    if args.expand:
        from orchestration import expand_command

        sampling.policy.check(args.prompt)
        expansion = expand_command.expanded(question, args.prompt, args.seed)
        say(expand_command.as_text(expansion))
        wish = dataclasses.replace(wish, prompt_used=expansion.expanded)
    made = sample_one(store, sampling, config.shape, wish)
    path = store.at(made.path)
    then = "evaluate"
    if args.draft:
        then = f"sample --prompt {args.prompt!r} --seed {args.seed} --from-draft (and the same options)"
    found = {"path": path, **made.facts}
    if expansion:
        found["expansion"] = dataclasses.asdict(expansion)
    return Answer(found, as_text(made.facts, path), question.command(then))


def wish_of(args: argparse.Namespace):  # type: ignore[no-untyped-def]  # torch-free, but not needed by the parser
    """What the options ask for.

    Raises:
        UsageError: If they do not read, or do not go together.
    """
    from trainer.wishes import Wish

    for name, needs in (
        ("extend", "video"),
        ("inpaint", "video"),
        ("outpaint", "video"),
        ("fill", "gap"),
        ("gap", "fill"),
    ):
        if getattr(args, name) and not getattr(args, needs):
            raise UsageError(f"--{name} needs --{needs}")
    if bool(args.edit) != bool(args.region):
        raise UsageError("--edit VIDEO and --region X,Y,W,H go together")
    videos = [v for v in (args.video, args.fill, args.edit) if v]
    if len(videos) > 1 or (videos and (args.image or args.connect or args.loop)):
        raise UsageError("one task at a time: give one of --image, --video, --connect, --fill, --edit and --loop")
    if args.strength is not None and not (
        args.edit or (args.video and not (args.extend or args.inpaint or args.outpaint))
    ):
        raise UsageError("--strength goes with --video alone, or with --edit")
    first, second = args.connect or ("", "")
    width, height = size(args.size) if args.size else (None, None)
    box: tuple[float, ...] = ()
    mask = ""
    if args.inpaint or args.region:
        text = args.inpaint or args.region
        box = numbers(text)
        if not box and args.region:
            raise UsageError(f"--region takes X,Y,WIDTH,HEIGHT in pixels, got `{text}`")
        mask = "" if box else text
    return Wish(
        prompt=args.prompt,
        width=width,
        height=height,
        frames=args.frames,
        seconds=args.seconds,
        seed=args.seed,
        image=args.image or "",
        video=videos[0] if videos else "",
        extend=args.extend or "",
        first=first,
        second=second,
        gaps=tuple(gap(g) for g in args.gap or ()),
        box=box,
        mask=mask,
        edit=bool(args.edit),
        outpaint=size(args.outpaint, "--outpaint") if args.outpaint else (),
        loop=args.loop,
        strength=args.strength,
        draft=args.draft,
        from_draft=args.from_draft,
    )


def credentials(question: Ask, args: argparse.Namespace) -> Answer:
    """What a file says of itself, and whether it is as it was signed; exit code 1 if it is not."""
    from trainer.credentials import read

    found = read(args.file)
    made = found["generation"] or {}
    lines = [f"state        {found['state']}{': ' + ', '.join(found['problems']) if found['problems'] else ''}"]
    lines += [f"signer       {found['signer']}", *(f"{k:<12} {v}" for k, v in made.items())]
    return Answer({"path": args.file, **found}, "\n".join(lines), "", 0 if found["state"] != "Invalid" else 1)


def size(text: str, option: str = "--size") -> tuple[int, int]:
    """`WIDTHxHEIGHT` in pixels.

    Raises:
        UsageError: If it does not read so.
    """
    match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if not match or int(match[1]) < 2 or int(match[2]) < 2:
        raise UsageError(f"{option} takes WIDTHxHEIGHT in pixels, such as 96x64, got `{text}`")
    return int(match[1]), int(match[2])


def numbers(text: str) -> tuple[float, ...]:
    """`X,Y,WIDTH,HEIGHT`, or nothing where the text is something else."""
    match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*", text)
    return tuple(float(n) for n in match.groups()) if match else ()


def gap(text: str) -> tuple[float, float]:
    """`START:END` in seconds.

    Raises:
        UsageError: If it does not read so.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", text.strip())
    if not match or float(match[2]) <= float(match[1]):
        raise UsageError(f"--gap takes START:END in seconds, such as 1:2.5, got `{text}`")
    return float(match[1]), float(match[2])

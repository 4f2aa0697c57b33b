"""The command `dailies export`: a frozen manifest in a format that other trainers read."""

import argparse
import dataclasses

from orchestration.ask import Answer, Ask
from pipelines.exports import FORMATS
from pipelines.exports.base import ExportConfig
from pipelines.exports.base import export as write
from schemas.errors import UsageError


def export(question: Ask, args: argparse.Namespace) -> Answer:
    """Write a manifest; exit code 1 if a clip had to be left out."""
    chosen = next(f for f in FORMATS if f.name == args.format)
    try:
        config = ExportConfig(text=args.text, shard_bytes=round(args.shard_mb * 1e6), copy=args.copy)
    except ValueError as e:
        raise UsageError(str(e)) from e
    found = write(chosen, question.readable(), args.manifest, args.to, config)
    text = (
        f"{found.clips} clips of manifest {found.manifest[:12]} in {found.folder} ({found.files} files, "
        f"{found.size_bytes / 1e6:.1f} MB, {found.reused} were there already)"
    )
    if found.left_out:
        text += f"\n{len(found.left_out)} clips left out; left_out.json says why"
    return Answer(dataclasses.asdict(found), text, found.read_with, 1 if found.left_out else 0)

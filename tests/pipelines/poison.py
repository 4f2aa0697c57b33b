"""A function over crates of apples that crashes, hangs or raises, as their names say; light, as children import it."""

import dataclasses
import os
import signal
import time
from typing import Any

from tests.orchestration.toys import APPLES, Apple


@dataclasses.dataclass(frozen=True)
class Taste:
    """Tastes crates of apples; some apples are poisonous, some take for ever."""

    marks: str

    def __call__(self, crate: tuple[str, ...]) -> dict[str, Any]:
        with open(os.path.join(self.marks, "-".join(crate)), "a") as f:
            f.write("x")
        for name in crate:
            if name.startswith("deadly"):
                os.kill(os.getpid(), signal.SIGSEGV)
            if name.startswith("stuck"):
                time.sleep(600)
            if name.startswith("bad"):
                raise RuntimeError("worm")
        return {"apples": APPLES.from_rows([Apple(name=n, weight_g=1.0, status="ok") for n in crate])}


def where(seconds: float) -> int:
    """The process that an item ran in."""
    time.sleep(seconds)
    return os.getpid()

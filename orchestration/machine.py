"""What machine this is: its processor, never a name or an address."""

import platform
import re
from pathlib import Path


def processor() -> str:
    """As the kernel calls it; the architecture where it does not say."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", info.read_text() if info.exists() else "")
    return model.group(1).strip() if model else platform.machine()

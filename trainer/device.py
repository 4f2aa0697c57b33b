"""Where models run: `cpu`, `cuda` or `cuda:N`, said in the config and looked for before anything is loaded.

Looked for late, in the process that computes: a config may be written on one machine for another.
"""

import re

from schemas.errors import ConfigError

_KNOWN = re.compile(r"cpu|cuda(:\d+)?")


def check_name(device: str) -> None:
    """Refuse what names no device.

    Raises:
        ValueError: With the names that there are.
    """
    if not _KNOWN.fullmatch(device):
        raise ValueError(f"a device is cpu, cuda or cuda:N, got `{device}`")


def check_precision(precision: str) -> None:
    """Refuse what names no precision.

    Raises:
        ValueError: With the names that there are.
    """
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be float32 or bfloat16, got `{precision}`")


def present(device: str, setting: str) -> str:
    """The device, if torch has it here.

    Args:
        setting: The key that asked for it, for the message.

    Raises:
        ConfigError: If it is a GPU that torch does not see.
    """
    import torch

    if device == "cpu":
        return device
    _, _, number = device.partition(":")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        seen = f"{count} CUDA device(s)" if count else "no CUDA device"
        raise ConfigError(f"{setting}={device}, and torch {torch.__version__} sees {seen} here: set {setting}=cpu")
    return device

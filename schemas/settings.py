"""Configs are frozen dataclasses; a recipe is a function that returns a whole one.

This file turns text from outside (`--set scan.proxy_fps=4`) into a new config, and refuses what does not
exist with the nearest name that does.  Types come from the dataclass, so a wrong value fails here, before
any job is submitted.
"""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from schemas.errors import ConfigError

Config = TypeVar("Config")


def pick(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    """Look a name up in a list of members, or say which names there are and which is nearest."""
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" hint: did you mean `{near[0]}`?" if near else ""
    raise ConfigError(f"unknown {kind} `{name}`; known: {', '.join(sorted(known))}.{hint}")


def _parse(text: str, hint: Any, key: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() in ("none", "null"):
            return None
        hint = next(a for a in args if a is not type(None))
        return _parse(text, hint, key)
    try:
        if hint is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if origin in (tuple, list):
            value = json.loads(text) if text.lstrip().startswith("[") else [p for p in text.split(",") if p]
            inner = args[0] if args else str
            return tuple(_parse(str(v), inner, key) for v in value)
        if isinstance(hint, type):
            return hint(text)
    except (KeyError, ValueError) as e:
        name = getattr(hint, "__name__", str(hint))
        raise ConfigError(f"`{key}` takes a value of type {name}, got `{text}`") from e
    raise ConfigError(f"`{key}` cannot be set from the command line (its type is {hint})")


def _set(config: Any, path: list[str], text: str, key: str) -> Any:
    hints = typing.get_type_hints(type(config))
    names = {f.name: f for f in dataclasses.fields(config)}
    pick(f"setting in `{key}`", path[0], names)
    old = getattr(config, path[0])
    if len(path) > 1:
        if not dataclasses.is_dataclass(old):
            raise ConfigError(f"`{key}`: `{path[0]}` holds no settings of its own")
        new = _set(old, path[1:], text, key)
    elif dataclasses.is_dataclass(old):
        inner = ", ".join(f.name for f in dataclasses.fields(old))
        raise ConfigError(f"`{key}` is a group of settings; name one of: {inner}")
    else:
        new = _parse(text, hints[path[0]], key)
    return dataclasses.replace(config, **{path[0]: new})


def override(config: Config, settings: Iterable[str]) -> Config:
    """Apply `key.path=value` texts to a frozen config and return the new one.

    Raises:
        ConfigError: If a key does not exist, a value does not parse, or the new config refuses it.
    """
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set takes key=value, got `{setting}`")
        try:
            config = _set(config, key.strip().split("."), text.strip(), key.strip())
        except ConfigError:
            raise
        except (ValueError, TypeError) as e:  # a __post_init__ that refuses
            raise ConfigError(f"`{setting}`: {e}") from e
    return config


def recipe(name: str, known: Mapping[str, Callable[[], Config]], settings: Iterable[str] = ()) -> Config:
    """Build a recipe by name and apply the user's settings."""
    return override(typing.cast(Callable[[], Config], pick("recipe", name, known))(), settings)

"""The prompt policy: which prompts are refused, by rules that an operator writes, with a message that says by which.

A rule is `name=regular expression`, matched anywhere in the prompt whatever the case.  Beyond that a hook, named
`module:function`, is asked with the prompt and answers with a reason to refuse, or an empty text.  Nothing is refused
by default: what may not be generated is for who runs the model to say, and is written in the recipe.
"""

import dataclasses
import importlib
import re
from collections.abc import Callable

from schemas.errors import ConfigError, UsageError


class Refused(UsageError):
    """A prompt that the policy does not let through."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PromptPolicy:
    """What is refused."""

    deny: tuple[str, ...] = ()
    """Rules `name=regular expression`; a prompt in which one is found is refused by that name."""
    hook: str = ""
    """`module:function` that takes the prompt and returns why it is refused, or an empty text; empty for none."""

    def __post_init__(self) -> None:
        for rule in self.deny:
            name, _, pattern = rule.partition("=")
            if not name.strip() or not pattern:
                raise ValueError(f"a prompt rule is `name=regular expression`, got `{rule}`")
            try:
                re.compile(pattern)
            except re.error as e:
                raise ValueError(f"prompt rule `{name}`: {e}") from e
        if self.hook and not re.fullmatch(r"[\w.]+:\w+", self.hook):
            raise ValueError(f"a prompt hook is `module:function`, got `{self.hook}`")

    def check(self, prompt: str) -> None:
        """Let a prompt through.

        Raises:
            Refused: If a rule or the hook objects; names it.
            ConfigError: If the hook cannot be had or does not answer with a text.
        """
        for rule in self.deny:
            name, _, pattern = rule.partition("=")
            if re.search(pattern, prompt, re.IGNORECASE):
                raise Refused(f"the prompt is refused by rule `{name.strip()}` of the prompt policy")
        if self.hook:
            why = _function(self.hook)(prompt)
            if not isinstance(why, str):
                raise ConfigError(f"prompt hook `{self.hook}` answers with a text, got {type(why).__name__}")
            if why:
                raise Refused(f"the prompt is refused by `{self.hook}`: {why}")


def _function(hook: str) -> Callable[[str], object]:
    module, _, name = hook.partition(":")
    try:
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as e:
        raise ConfigError(f"prompt hook `{hook}` cannot be had: {e}") from e

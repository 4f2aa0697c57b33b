"""What can go wrong, and who has to act.

    DailiesError
    +-- UsageError            the user asked for something that cannot be: exit code 2, one line
    |   +-- ConfigError       unknown recipe, unknown `--set` key, value out of range
    |   +-- FootageError      the footage folder is missing or holds no file
    |   +-- RootError         the root cannot be written
    +-- WorldError            something the job relies on is not as it was promised: the job stops
        +-- MissingTable      a stage's input was never made; names the command that makes it
        +-- DamagedTable      a table file does not read, or not with its schema
        +-- ModelError        a checkpoint is missing, truncated or of another kind
        +-- RootBusy          another process runs the same stage for the same batch
        +-- TooManyFailures   more items failed than the limit allows

A bad *item* (a broken video, a caption that loops) is never an exception out of a stage: it is a row
with a status and a reason.  Source: docs/architecture.md, "three kinds of trouble".
"""


class DailiesError(Exception):
    """Base of every error this project raises on purpose."""

    exit_code = 1


class UsageError(DailiesError):
    """The request cannot be met as it stands; the message says what to change."""

    exit_code = 2


class ConfigError(UsageError, ValueError):
    """A recipe, a key or a value that does not exist or is out of range."""


class FootageError(UsageError):
    """The footage folder is missing, empty, or not a folder."""


class RootError(UsageError):
    """The root cannot be created or written."""


class WorldError(DailiesError):
    """A promise that the job relies on does not hold."""


class MissingTable(WorldError):
    """A table that a stage reads was never made under this root."""


class DamagedTable(WorldError):
    """A table file cannot be read, or does not have the schema it should."""


class ModelError(WorldError):
    """A checkpoint is missing, cut short, or of another kind than asked for."""


class RootBusy(WorldError):
    """Another process is running the same stage for the same batch under this root."""


class TooManyFailures(WorldError):
    """The share of failed items is above the limit that the recipe allows."""

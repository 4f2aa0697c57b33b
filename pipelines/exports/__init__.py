"""The list of formats in which other trainers read a manifest: one file each, one line here."""

from pipelines.exports import opensora, videofolder, webdataset
from pipelines.exports.base import Format

FORMATS: tuple[Format, ...] = (webdataset.FORMAT, videofolder.FORMAT, opensora.FORMAT)

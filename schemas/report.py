"""The report: one HTML page that holds everything it shows, and what is on it."""

import dataclasses

from schemas.table import Table, column


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """One part of the page."""

    section: str = column("Heading on the page.")
    position: int = column("Place among the page's sections, from 0.")
    pictures: int = column("Pictures in it.")
    rows: int = column("Table rows it was made from.")
    page: str = column("The page, relative to the root.")
    page_digest: str = column("Digest of the page's bytes.")


REPORT = Table("report", ReportRow, ("section",), partitioned=False, doc="What the newest report shows.")

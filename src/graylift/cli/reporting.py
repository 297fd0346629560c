"""The report of a stored release as text. Called by `graylift report` and by the demo."""

from __future__ import annotations

from enum import Enum
from typing import assert_never

from graylift.ports import ReleaseStore


class ReportFormat(Enum):
    MARKDOWN = "md"
    HTML = "html"
    JSON = "json"


def report_text(store: ReleaseStore, release_id: str, form: ReportFormat) -> str:
    """One page about one release. KeyError if there is none of that id."""
    from graylift import report  # its templates take a while to load, and `--help` needs only the formats

    history = store.history(release_id)
    parts = history.release, history.events, history.reports
    match form:
        case ReportFormat.MARKDOWN:
            return report.render_markdown(*parts)
        case ReportFormat.HTML:
            return report.render_html(*parts)
        case ReportFormat.JSON:
            return report.render_json(*parts)
        case _:
            assert_never(form)

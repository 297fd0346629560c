"""The page as Markdown, without the plots. Called through `graylift.report`."""

from __future__ import annotations

import re

from graylift.report.facts import Facts
from graylift.report.template import checks_of, template

_ACTIVE = re.compile(r"[\\`*\[\]<>|&]")


def plain(value: object) -> str:
    """Text that is no Markdown and no HTML, fit for a cell of a table."""
    return _ACTIVE.sub(lambda found: "\\" + found[0], " ".join(str(value).split()))


_page = template("page.md.j2", autoescape=False, finalize=plain)


def markdown_from(facts: Facts) -> str:
    return _page.render(facts=facts, release=facts.release, checks=checks_of(facts))

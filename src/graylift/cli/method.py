"""How `graylift judge` judges. Apart from `judging`: the command line needs the words and none of the arithmetic."""

from __future__ import annotations

from enum import Enum


class Method(Enum):
    """ANYTIME: the judge of releases. KAYENTA: Kayenta's rules, for comparison."""

    ANYTIME = "anytime"
    KAYENTA = "kayenta"

"""The release file <-> `ReleaseSpec`: every problem of a file in one pass, each with its place and its cure.

    text -> document (a tree with places) -> fields, values, units (reading, going on after what is wrong)
         -> release, stages, judge (the meaning of the fields in shapes and defaults) -> ReleaseSpec

Called by the commands; it knows no other package than the domain.
"""

from graylift.spec.judge import DEFAULT
from graylift.spec.loading import load, load_rules, parse
from graylift.spec.stages import effective_margins

__all__ = ["DEFAULT", "effective_margins", "load", "load_rules", "parse"]

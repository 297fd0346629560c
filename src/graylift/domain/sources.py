"""Where a metric comes from that no gateway records: what a release file names, and what is to be read of it now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from graylift.domain.weights import Role

REVISION = "{revision}"
"""Stands, in the value of a label, for the name of the arm's revision as the release file has it."""


@dataclass(frozen=True, slots=True)
class PrometheusHistogram:
    """The share of values above a bound, in a classic histogram that a Prometheus scrapes.

    url:       of the Prometheus, http://host:port, with the path it is served under if there is one
    histogram: the metric's name, without `_bucket`
    above:     one of its bucket bounds, so that nothing has to be interpolated
    labels:    (name, value) that select its series; REVISION in a value tells the arms apart
    every_s:   evidence is cut into intervals of this length; several scrapes long
    """

    url: str
    histogram: str
    above: float
    labels: tuple[tuple[str, str], ...]
    every_s: float


@dataclass(frozen=True, slots=True)
class PrometheusCounters:
    """A share of events, of two counters that a Prometheus scrapes: of `total` events those that are `bad`."""

    url: str
    bad: str
    total: str
    labels: tuple[tuple[str, str], ...]
    every_s: float


@dataclass(frozen=True, slots=True)
class OtlpHistogram:
    """The share of values above a bound, in a histogram that the servers push by OTLP/HTTP to Graylift.

    above:      one of its bucket bounds
    attributes: (name, value) that a data point must have
    every_s:    as above; several export intervals long
    """

    histogram: str
    above: float
    attributes: tuple[tuple[str, str], ...]
    every_s: float


MetricOrigin: TypeAlias = PrometheusHistogram | PrometheusCounters | OtlpHistogram


@dataclass(frozen=True, slots=True)
class WantedArm:
    """One arm, and what its series are known by."""

    role: Role
    revision_id: str
    revision: str


@dataclass(frozen=True, slots=True)
class WantedMetric:
    """A metric of a release on traffic, to be read.

    metric:  the name of its check
    split:   what assigns requests now, in force since `since_s` (epoch seconds)
    """

    service: str
    metric: str
    origin: MetricOrigin
    split: str
    since_s: float
    arms: tuple[WantedArm, ...]

    @property
    def source(self) -> str:
        """What its reports call their gateway."""
        return f"{self.metric} of {self.service}"

"""The `checks` of a release file -> `ChecksSpec`: the settings of the pre-release checks. Called by `release`."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from graylift.domain.spec import (
    BoundaryCheck,
    CapacityCheck,
    ChecksSpec,
    ColdStartCheck,
    ConcurrencyCheck,
    ParityCheck,
    PerformanceCheck,
    Skip,
)
from graylift.spec import defaults, shapes
from graylift.spec.document import Node, Scalar
from graylift.spec.fields import Fields, Read, Shape, Wrong
from graylift.spec.model import MissingFile, file_path
from graylift.spec.values import between, decimal, duration, integer, percentage, rate, text

T = TypeVar("T")

_QUANTILE = re.compile(r"p([1-9]\d?(?:\.\d{0,3}[1-9])?)", re.ASCII)

_share = between(0, 1, "write a share from 0 to 1, as in 0.99", decimal)
_ratio = between(0.01, 1000, "write candidate / stable, as in 1.10: from 0.01 to 1000", decimal)
_slower = between(1, 1000, "write how many times as long it may take, as in 3: from 1 to 1000", decimal)
_rate = between(0.1, 100_000, "write a rate from 0.1/s to 100000/s", rate)
_duration = between(1, 3600, "write a duration from 1s to 1h", duration)
_free = between(0, 0.95, "write a percentage of the machine's memory, from 0% to 95%", percentage)


def read_checks(fields: Fields, base: Path, missing_file: MissingFile) -> ChecksSpec:
    file = partial(file_path, base=base, missing_file=missing_file)
    default = defaults.PRE_RELEASE_CHECKS
    parity = _check(fields, "parity", default.parity, shapes.PARITY, partial(_read_parity, file=file))
    performance = _check(fields, "performance", default.performance, shapes.PERFORMANCE, _read_performance)
    cold_start = _check(fields, "coldStart", default.cold_start, shapes.COLD_START, _read_cold_start)
    boundary = _check(fields, "boundary", default.boundary, shapes.BOUNDARY, lambda _: BoundaryCheck())
    capacity = _check(fields, "capacity", default.capacity, shapes.CAPACITY, _read_capacity)
    concurrency = _check(fields, "concurrency", default.concurrency, shapes.CONCURRENCY, _read_concurrency)
    return ChecksSpec(
        parity.value, performance.value, cold_start.value, boundary.value, capacity.value, concurrency.value
    )


def _check(fields: Fields, name: str, default: T | Skip, shape: Shape, read: Callable[[Fields], T]) -> Read[T | Skip]:
    """The settings of one check, or the reason not to run it."""

    def read_or_skip(own: Fields) -> T | Skip:
        if not own.has("skip"):
            return read(own)
        for other in shape.fields:
            if other != "skip":
                own.refuse(other, f"`{other}` has no meaning for a check that is skipped", "delete one of them")
        return Skip(own.read("skip", text).value)

    return fields.nested_or(default, name, shape, read_or_skip)


def _read_parity(fields: Fields, file: Callable[[Node], str]) -> ParityCheck:
    default = ParityCheck()
    samples = fields.read_or(default.samples, "samples", file)
    error = fields.read_or(default.max_relative_error, "maxRelativeError", _share)
    top1 = fields.read_or(default.min_top1_agreement, "minTop1Agreement", _share)
    stable = fields.read_or(default.min_stable_agreement, "minStableAgreement", _share)
    return ParityCheck(samples.value, error.value, top1.value, stable.value)


def _read_performance(fields: Fields) -> PerformanceCheck:
    default = PerformanceCheck()
    rate_per_s = fields.read_or(default.rate_per_s, "rate", _rate)
    duration_s = fields.read_or(default.duration_s, "duration", _duration)
    ratios = fields.table("maxLatencyRatio", _read_latency_ratio)
    throughput = fields.read_or(default.min_throughput_ratio, "minThroughputRatio", _ratio)
    latency = tuple(sorted(ratio.value for ratio in ratios.value)) or default.max_latency_ratio
    return PerformanceCheck(rate_per_s.value, duration_s.value, latency, throughput.value)


def _read_latency_ratio(key: Scalar, node: Node) -> tuple[float, float]:
    """(quantile, ratio) of `p99: 1.20`."""
    name = text(key)
    match = _QUANTILE.fullmatch(name)
    if match is None:
        raise Wrong(key.place, f"`{name}` is not a quantile of the latency", "write p50, p99, p99.9")
    return round(float(match[1]) / 100, 6), _ratio(node)


def _read_cold_start(fields: Fields) -> ColdStartCheck:
    ratio = fields.read_or(ColdStartCheck().max_first_request_ratio, "maxFirstRequestRatio", _slower)
    return ColdStartCheck(ratio.value)


def _read_capacity(fields: Fields) -> CapacityCheck:
    return CapacityCheck(fields.read_or(CapacityCheck().min_free_memory, "minFreeMemory", _free).value)


def _read_concurrency(fields: Fields) -> ConcurrencyCheck:
    return ConcurrencyCheck(fields.read_or(ConcurrencyCheck().contexts, "contexts", integer(2, 64)).value)

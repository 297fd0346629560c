"""The capacity check: does this machine hold both servers at once, and all traffic on either of them?

During a release both run, and after a rollback stable takes everything back at once; a machine that is full then kills
one of them. Measured with both warm and under request: what is free now, less what each has needed at its peak beyond
what it holds now, must leave the asked share of the whole. Where a stable of this service runs here already, it is
counted beside ours, which errs on the safe side. Memory of an endpoint lies elsewhere and is not counted.

Device memory is asked for where an engine runs on a GPU; NVML is imported then and only then. CUDA_VISIBLE_DEVICES
(whole GPUs or MIG instances) is verified and never changed. Called by `served`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import aiohttp

from graylift.checks.cold_start import Ask
from graylift.checks.devices import DeviceTrouble, visible_devices
from graylift.checks.memory import ProcessMemory, Room, process_memory, room
from graylift.checks.questions import ANSWER_WITHIN_S
from graylift.checks.servers import RunningServer
from graylift.domain.release import CheckOutcome, CheckResult
from graylift.domain.spec import CapacityCheck
from graylift.errors import ProtocolError

CHECK = "capacity"

_ON_GPU = frozenset({"tensorrt", "tensorrt-rtx"})


async def check_capacity(spec: CapacityCheck, stable: RunningServer, candidate: RunningServer, ask: Ask) -> CheckResult:
    """Both are asked once more: what a request allocates is part of what they need."""
    ours = [server for server in (stable, candidate) if server.process is not None]
    if not ours:
        sentence = "both run elsewhere, as endpoints: their memory is not on this machine"
        return CheckResult(CHECK, CheckOutcome.SKIPPED, sentence)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)) as session:
        for server in (stable, candidate):
            # A server that does not answer is found by the checks beside this one; here memory alone is asked about.
            with suppress(ProtocolError, aiohttp.ClientError, TimeoutError):
                await ask(session, server)
    needs: list[tuple[RunningServer, ProcessMemory]] = []
    for server in ours:
        assert server.process is not None
        memory = process_memory(server.process.pid)
        if memory is None:
            sentence = f"{server.name}'s server {await server.process.end() or 'has ended'}"
            return CheckResult(CHECK, CheckOutcome.FAIL, sentence)
        needs.append((server, memory))
    good, sentence, evidence = _host(spec, needs, room())
    if any(server.runtime is not None and server.runtime.value in _ON_GPU for server in ours):
        of_devices = _devices(spec)
        good, sentence = good and of_devices[0], f"{sentence}; {of_devices[1]}"
        evidence += of_devices[2]
    else:
        evidence += ("device memory: not asked for, no engine runs on a GPU",)
    return CheckResult(CHECK, CheckOutcome.PASS if good else CheckOutcome.FAIL, sentence, evidence)


def _host(
    spec: CapacityCheck, needs: Sequence[tuple[RunningServer, ProcessMemory]], of_all: Room
) -> tuple[bool, str, tuple[str, ...]]:
    head_room = sum(max(0, memory.peak_bytes - memory.resident_bytes) for _, memory in needs)
    free = of_all.available_bytes - head_room
    share = free / of_all.total_bytes
    together = sum(memory.share_bytes for _, memory in needs)
    good = share >= spec.min_free_memory
    names = " and ".join(server.name for server, _ in needs)
    sentence = (
        f"with {names} warm, holding {_size(together)}, and {_size(head_room)} kept for their peaks, "
        f"{_size(max(0, free))} of {_size(of_all.total_bytes)} stay free: {max(0.0, share):.0%} of the {of_all.where}, "
        f"at least {spec.min_free_memory * 100:.3g} % asked"
    )
    if not good:
        sentence += "; end what else uses this memory, take a machine with more, or lower checks.capacity.minFreeMemory"
    evidence = tuple(
        f"{server.name}: holds {_size(memory.share_bytes)} of its own, resident {_size(memory.resident_bytes)}, "
        f"peak {_size(memory.peak_bytes)}"
        for server, memory in needs
    )
    return good, sentence, (*evidence, f"{of_all.where}: {_size(of_all.available_bytes)} available now")


def _devices(spec: CapacityCheck) -> tuple[bool, str, tuple[str, ...]]:
    """Each visible device, with the two servers on it."""
    try:
        placement, devices = visible_devices()
    except DeviceTrouble as trouble:
        return False, str(trouble), ()
    fullest = min(devices, key=lambda device: device.free_bytes / device.total_bytes)
    share = fullest.free_bytes / fullest.total_bytes
    sentence = (
        f"{_size(fullest.free_bytes)} of {_size(fullest.total_bytes)} stay free on {fullest.name}: {share:.0%}, "
        f"at least {spec.min_free_memory * 100:.3g} % asked"
    )
    evidence = (
        placement,
        *(f"{d.name} ({d.uuid}): {_size(d.free_bytes)} of {_size(d.total_bytes)} free" for d in devices),
    )
    return share >= spec.min_free_memory, sentence, evidence


def _size(size_bytes: int) -> str:
    if size_bytes < 10 * 2**30:
        return f"{size_bytes / 2**20:,.0f} MiB"
    return f"{size_bytes / 2**30:,.1f} GiB"

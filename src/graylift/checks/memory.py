"""Memory as Linux tells it: of one process, and of the machine or the control group that we live in.

Only reads files; `proc` and `cgroups` are arguments so that tests bring their own. Called by `capacity`, `servers` and
`performance`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """resident, peak: as the kernel counts them (VmRSS, VmHWM)
    share: resident without what other processes hold as well, by their number (Pss): two servers of one runtime map
           the same libraries, and the sum of their residents counts those twice"""

    resident_bytes: int
    peak_bytes: int
    share_bytes: int


def process_memory(pid: int, proc: Path = PROC) -> ProcessMemory | None:
    """None if there is no such process."""
    try:
        status = _fields((proc / str(pid) / "status").read_text())
        resident, peak = status["VmRSS"], status["VmHWM"]
    except (OSError, KeyError):  # it ended; of one that ended but was not waited for no memory is told
        return None
    try:
        share = _fields((proc / str(pid) / "smaps_rollup").read_text())["Pss"]
    except (OSError, KeyError):  # an old kernel, or no right to look
        share = resident
    return ProcessMemory(resident, peak, share)


@dataclass(frozen=True, slots=True)
class Room:
    """What there is for everybody in it. `where`: the machine, or the control group with the least room."""

    total_bytes: int
    available_bytes: int
    where: str


def room(proc: Path = PROC, cgroups: Path = CGROUPS) -> Room:
    """The tightest of the machine and of the control groups around this process.

    What a group uses counts without its inactive file pages, which the kernel gives back when asked, as it does in
    MemAvailable.
    """
    machine = _fields((proc / "meminfo").read_text())
    rooms = [Room(machine["MemTotal"], machine["MemAvailable"], "machine")]
    rooms += _groups(proc, cgroups)
    return min(rooms, key=lambda one: one.available_bytes)


def _groups(proc: Path, cgroups: Path) -> Iterator[Room]:
    """Control groups with a limit, from ours upwards."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            mount, limit, usage, inactive = cgroups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            mount, limit, usage = cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            inactive = "total_inactive_file"
        else:
            continue
        # In a container the path may be that of the host, while the mount shows our group as its root: then only the
        # last step of this walk finds anything.
        group = mount / path.lstrip("/")
        while True:
            found = _group(group, limit, usage, inactive)
            if found is not None:
                yield found
            if group == mount:
                break
            group = group.parent


def _group(group: Path, limit: str, usage: str, inactive: str) -> Room | None:
    """None if there is no such group, or it has no limit."""
    try:
        most, used = (group / limit).read_text().strip(), int((group / usage).read_text())
        statistics = (group / "memory.stat").read_text()
    except (OSError, ValueError):
        return None
    if not most.isdecimal() or int(most) >= 2**60:  # v1 writes no limit as a number near 2**63
        return None
    given_back = re.search(rf"^{inactive} (\d+)$", statistics, re.MULTILINE)
    used -= int(given_back[1]) if given_back else 0
    return Room(int(most), max(0, int(most) - max(0, used)), f"control group {group}")


def _fields(text: str) -> dict[str, int]:
    """`Name:   123 kB` lines, in bytes."""
    return {name: int(number) * 1024 for name, number in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}

"""Memory and devices as the system tells them, from files and lists of ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graylift.checks.devices import Device, DeviceTrouble, chosen
from graylift.checks.memory import Room, process_memory, room

GIB = 2**30


def a_machine(folder: Path, *, total: int, available: int, cgroup: str = "") -> Path:
    proc = folder / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal:  {total // 1024} kB\nMemAvailable:  {available // 1024} kB\n")
    (proc / "self" / "cgroup").write_text(cgroup)
    return proc


def a_group(folder: Path, limit: str, used: int, inactive: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\n")


def test_without_a_limit_the_room_is_the_machines(tmp_path: Path) -> None:
    proc = a_machine(tmp_path, total=16 * GIB, available=10 * GIB, cgroup="0::/a/b\n")
    a_group(tmp_path / "cgroups" / "a" / "b", "max", 1 * GIB, 0)
    assert room(proc, tmp_path / "cgroups") == Room(16 * GIB, 10 * GIB, "machine")
    assert room(proc, tmp_path / "none") == Room(16 * GIB, 10 * GIB, "machine")


def test_the_tightest_group_above_us_counts_without_what_the_kernel_would_give_back(tmp_path: Path) -> None:
    proc = a_machine(tmp_path, total=16 * GIB, available=10 * GIB, cgroup="0::/a/b\n")
    groups = tmp_path / "cgroups"
    a_group(groups / "a" / "b", str(8 * GIB), 3 * GIB, 1 * GIB)
    assert room(proc, groups) == Room(8 * GIB, 6 * GIB, f"control group {groups / 'a' / 'b'}")
    a_group(groups / "a", str(4 * GIB), 3 * GIB, 0)
    assert room(proc, groups) == Room(4 * GIB, 1 * GIB, f"control group {groups / 'a'}")


def test_a_container_whose_group_is_the_root_of_its_mount_is_found(tmp_path: Path) -> None:
    proc = a_machine(tmp_path, total=16 * GIB, available=10 * GIB, cgroup="0::/of/the/host\n")
    a_group(tmp_path / "cgroups", str(2 * GIB), 1 * GIB, 0)
    assert room(proc, tmp_path / "cgroups").total_bytes == 2 * GIB


def test_the_older_control_groups_are_read_as_well(tmp_path: Path) -> None:
    proc = a_machine(tmp_path, total=16 * GIB, available=10 * GIB, cgroup="5:cpu:/x\n4:memory:/x\n")
    group = tmp_path / "cgroups" / "memory" / "x"
    group.mkdir(parents=True)
    (group / "memory.limit_in_bytes").write_text(str(4 * GIB))
    (group / "memory.usage_in_bytes").write_text(str(3 * GIB))
    (group / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {GIB}\n")
    assert room(proc, tmp_path / "cgroups") == Room(4 * GIB, 2 * GIB, f"control group {group}")
    (group / "memory.limit_in_bytes").write_text(str(2**63 - 4096))  # how it writes that there is none
    assert room(proc, tmp_path / "cgroups").where == "machine"


def test_a_process_tells_what_it_holds_and_one_that_is_gone_tells_nothing() -> None:
    memory = process_memory(os.getpid())
    assert memory is not None
    assert 0 < memory.share_bytes <= memory.resident_bytes <= memory.peak_bytes
    assert process_memory(2**22 + 1) is None


ONE = Device(0, "GPU-1111-aaaa", "H", 80 * GIB, 70 * GIB)
TWO = Device(1, "GPU-2222-bbbb", "H", 80 * GIB, 60 * GIB)
PART = Device(None, "MIG-3333-cccc", "H MIG 1g", 10 * GIB, 9 * GIB)


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        (None, (ONE, TWO)),
        ("1", (TWO,)),
        ("1,0", (TWO, ONE)),
        ("GPU-2222", (TWO,)),
        ("MIG-3333-cccc", (PART,)),
    ],
)
def test_devices_are_chosen_as_cuda_chooses_them(visible: str | None, found: tuple[Device, ...]) -> None:
    assert chosen(visible, (ONE, TWO, PART))[1] == found


@pytest.mark.parametrize("visible", ["", "2", "-1", "GPU-9", "GPU-", "0,7", "gpu0"])
def test_a_name_that_is_no_device_is_refused_with_those_there_are(visible: str) -> None:
    with pytest.raises(DeviceTrouble, match="this machine has 0 \\(GPU-1111-aaaa\\), 1"):
        chosen(visible, (ONE, TWO))


def test_a_machine_without_devices_says_so() -> None:
    with pytest.raises(DeviceTrouble, match="no NVIDIA device"):
        chosen(None, ())

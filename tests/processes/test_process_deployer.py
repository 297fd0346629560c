"""Servers as processes: they outlive the controller, are never mistaken for others, and end when they must."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from deploying import STAND_IN, Hours, MakeDeployer, a_revision

from graylift.adapters.processes import ProcessDeployer
from graylift.domain.revision import Instance, InstanceState, Revision, RunningEndpoint
from graylift.errors import DeployError

pytestmark = pytest.mark.real
V2 = a_revision()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.02)


async def seen(deployer: ProcessDeployer, state: InstanceState, revision: Revision = V2) -> Instance:
    async def matches() -> bool:
        return (await deployer.observe([revision]))[0].state is state

    await until(matches)
    return (await deployer.observe([revision]))[0]


def state_of(tmp_path: Path, revision: Revision = V2) -> Path:
    return tmp_path / "servers" / revision.id / "server.json"


def pid_of(tmp_path: Path, revision: Revision = V2) -> int:
    return json.loads(state_of(tmp_path, revision).read_text())["server"]["process"]["pid"]


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_the_server_is_told_everything_about_its_revision(make_deployer: MakeDeployer, tmp_path: Path) -> None:
    deployer = make_deployer()
    await deployer.ensure(V2)
    ready = await seen(deployer, InstanceState.READY)
    assert ready.address is not None
    command = Path(f"/proc/{pid_of(tmp_path)}/cmdline").read_text().rstrip("\0").split("\0")
    assert command == [
        *(sys.executable, str(STAND_IN), "ready"),
        *("--artefacts", str(tmp_path / "artefacts"), "--artefact", "a" * 64),
        *("--service", "file-type", "--revision", V2.id, "--port", ready.address.rpartition(":")[2]),
        *("--drain-timeout", "20", "--input", "bytes=input_0", "--output", "label=output=0"),
        *("--contexts", "1", "--max-batch", "1", "--max-queue-delay", "0"),
        *("--max-queue", "256"),
    ]


async def test_a_server_lives_in_a_session_of_its_own_without_our_input(
    make_deployer: MakeDeployer, tmp_path: Path
) -> None:
    await make_deployer().ensure(V2)
    pid = pid_of(tmp_path)
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"


async def test_it_outlives_a_controller_that_is_killed_and_the_next_one_adopts_and_ends_it(
    make_deployer: MakeDeployer, tmp_path: Path
) -> None:
    controller = f"""
import asyncio, os, pickle, signal, sys
from pathlib import Path
from graylift.adapters.processes import ProcessDeployer
revision = pickle.load(sys.stdin.buffer)
root = Path({str(tmp_path)!r})
deployer = ProcessDeployer(root / "servers", root / "artefacts", serve=(sys.executable, {str(STAND_IN)!r}, "ready"))
asyncio.run(deployer.ensure(revision))
os.kill(os.getpid(), signal.SIGKILL)
"""
    dead = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", controller], input=pickle.dumps(V2))
    assert dead.returncode == -signal.SIGKILL
    pid = pid_of(tmp_path)
    successor = make_deployer()
    await seen(successor, InstanceState.READY)
    await successor.ensure(V2)
    assert pid_of(tmp_path) == pid
    os.kill(pid, signal.SIGKILL)
    orphaned = await seen(successor, InstanceState.DEAD)
    assert "exit status is not known" in orphaned.detail


async def test_a_controller_killed_between_start_and_note_loses_no_server(
    make_deployer: MakeDeployer, tmp_path: Path
) -> None:
    await make_deployer().ensure(V2)
    pid, file = pid_of(tmp_path), state_of(tmp_path)
    noted = json.loads(file.read_text())
    noted["server"]["process"] = None
    file.write_text(json.dumps(noted))
    successor = make_deployer()
    await successor.ensure(V2)
    assert pid_of(tmp_path) == pid


async def test_a_controller_killed_before_the_start_leaves_nothing_that_runs(
    make_deployer: MakeDeployer, tmp_path: Path
) -> None:
    await make_deployer().ensure(V2)
    noted = json.loads(state_of(tmp_path).read_text())
    noted["server"] |= {"process": None, "command": [*noted["server"]["command"], "--never-started"]}
    other = a_revision("v3")
    state_of(tmp_path, other).parent.mkdir()
    state_of(tmp_path, other).write_text(json.dumps(noted))
    successor = make_deployer()
    assert (await successor.observe([other]))[0].state is InstanceState.ABSENT
    assert list(await successor.running()) == [V2.id]


async def test_a_pid_that_was_given_to_another_process_is_never_signalled(
    make_deployer: MakeDeployer, tmp_path: Path
) -> None:
    await make_deployer().ensure(V2)
    file = state_of(tmp_path)
    noted = json.loads(file.read_text())
    innocent = subprocess.Popen(["sleep", "60"])
    try:
        own = noted["server"]["process"].copy()
        noted["server"]["process"] |= {"pid": innocent.pid, "start_ticks": own["start_ticks"] - 1}
        file.write_text(json.dumps(noted))
        deployer = make_deployer(drain_s=-10.0)
        await deployer.stop(V2.id)
        assert list(await deployer.ending()) == []
        noted["server"] |= {"ended": None}
        noted["leaving"] = [{"process": noted["server"]["process"], "port": 1, "kill_at_s": 0.0}]
        file.write_text(json.dumps(noted))
        assert (await deployer.observe([V2]))[0].state is InstanceState.DEAD
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()
        noted["server"]["process"] = own
        noted["leaving"] = []
        file.write_text(json.dumps(noted))


async def test_a_crash_is_dead_with_its_status_and_its_last_words(make_deployer: MakeDeployer) -> None:
    deployer = make_deployer("crash")
    await deployer.ensure(V2)
    dead = await seen(deployer, InstanceState.DEAD)
    assert dead.detail.startswith("its server exited with status 3; the last lines of ")
    assert dead.detail.endswith("\n  cannot load the engine")


async def test_a_kill_is_dead_with_the_name_of_the_signal_also_for_the_next_controller(
    make_deployer: MakeDeployer, tmp_path: Path
) -> None:
    deployer = make_deployer()
    await deployer.ensure(V2)
    os.kill(pid_of(tmp_path), signal.SIGSEGV)
    await seen(deployer, InstanceState.DEAD)
    (dead,) = await make_deployer().observe([V2])
    assert dead.detail.startswith("its server was killed by SIGSEGV;")


async def test_one_that_never_gets_ready_is_starting_and_says_what_it_answers(make_deployer: MakeDeployer) -> None:
    deployer = make_deployer("starting")
    await deployer.ensure(V2)

    async def answers() -> bool:
        (instance,) = await deployer.observe([V2])
        assert instance.state is InstanceState.STARTING
        return "/v2/health/ready answered 503, not 200; the last lines of" in instance.detail

    await until(answers)


async def test_a_restart_keeps_the_address_and_the_log_of_the_last_run(
    make_deployer: MakeDeployer, tmp_path: Path
) -> None:
    deployer = make_deployer()
    await deployer.ensure(V2)
    before = await seen(deployer, InstanceState.READY)
    os.kill(pid_of(tmp_path), signal.SIGKILL)
    await seen(deployer, InstanceState.DEAD)
    await deployer.ensure(V2)
    after = await seen(deployer, InstanceState.READY)
    assert after.address == before.address
    folder = state_of(tmp_path).parent
    assert (folder / "server.log").read_text() == (folder / "server.log.1").read_text() != ""


async def test_a_log_of_many_megabytes_is_cut_at_the_next_start(make_deployer: MakeDeployer, tmp_path: Path) -> None:
    log = state_of(tmp_path).parent / "server.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"long ago\n" * 1_000_000 + b"the end\n")
    await make_deployer().ensure(V2)
    kept = log.with_name("server.log.1").read_bytes()
    assert len(kept) == 1 << 20
    assert kept.endswith(b"the end\n")


async def test_a_port_that_somebody_took_meanwhile_is_given_up(make_deployer: MakeDeployer, tmp_path: Path) -> None:
    deployer = make_deployer()
    await deployer.ensure(V2)
    before = await seen(deployer, InstanceState.READY)
    assert before.address is not None
    os.kill(pid_of(tmp_path), signal.SIGKILL)
    await seen(deployer, InstanceState.DEAD)
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", int(before.address.rpartition(":")[2])))
        thief.listen()
        await deployer.ensure(V2)
        after = await seen(deployer, InstanceState.READY)
    assert after.address != before.address


async def test_a_crash_loop_is_restarted_ever_more_slowly_until_a_run_is_long(
    make_deployer: MakeDeployer, tmp_path: Path, hours: Hours
) -> None:
    deployer = make_deployer("crash", monotonic=lambda: hours.forward_s)

    async def restarts_after(wait_s: float) -> bool:
        """Let the server end, wait, and ensure it: was it started again?"""
        await seen(deployer, InstanceState.DEAD)
        before = pid_of(tmp_path)
        hours.forward_s += wait_s
        await deployer.ensure(V2)
        return pid_of(tmp_path) != before

    await deployer.ensure(V2)
    assert await restarts_after(0.0), "the first restart is at once"
    for wait_s in (0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
        assert not await restarts_after(wait_s - 0.1)
        assert await restarts_after(0.1)
    assert await restarts_after(60.0)
    assert not await restarts_after(0.4)
    assert await restarts_after(0.1)


async def test_a_server_that_ends_when_told_leaves_nothing_behind(make_deployer: MakeDeployer, tmp_path: Path) -> None:
    deployer = make_deployer()
    await deployer.ensure(V2)
    await seen(deployer, InstanceState.READY)
    pid = pid_of(tmp_path)
    await deployer.stop(V2.id)

    async def gone() -> bool:
        return not await deployer.ending()

    await until(gone)
    assert not is_there(pid), "not even a zombie"
    assert not state_of(tmp_path).exists()
    assert (state_of(tmp_path).parent / "server.log").exists()


async def test_a_server_that_is_deaf_is_killed_when_its_time_is_over_also_by_the_next_controller(
    make_deployer: MakeDeployer, tmp_path: Path, hours: Hours
) -> None:
    deployer = make_deployer("deaf", drain_s=100.0)
    await deployer.ensure(V2)
    await seen(deployer, InstanceState.READY)
    pid = pid_of(tmp_path)
    await deployer.stop(V2.id)
    successor = make_deployer("deaf", drain_s=100.0)
    hours.forward_s += 50.0
    await successor.running()
    assert list(await successor.ending()) == [V2.id]
    hours.forward_s += 56.0
    await successor.running()

    async def gone() -> bool:
        return not await successor.ending()

    await until(gone)
    assert not is_there(pid)


async def test_a_new_server_starts_beside_one_that_still_drains(make_deployer: MakeDeployer, tmp_path: Path) -> None:
    deployer = make_deployer("deaf")
    await deployer.ensure(V2)
    old = await seen(deployer, InstanceState.READY)
    pid = pid_of(tmp_path)
    await deployer.stop(V2.id)
    assert (await deployer.observe([V2]))[0].state is InstanceState.ABSENT
    await deployer.ensure(V2)
    new = await seen(deployer, InstanceState.READY)
    assert new.address != old.address
    assert is_there(pid)
    assert (list(await deployer.running()), list(await deployer.ending())) == ([V2.id], [V2.id])


async def test_a_command_that_does_not_exist_cannot_be_started_and_says_which(
    make_deployer: MakeDeployer, tmp_path: Path
) -> None:
    deployer = make_deployer(serve=(str(tmp_path / "no-such-python"),))
    with pytest.raises(DeployError, match=r"cannot start .*no-such-python.*: No such file or directory"):
        await deployer.ensure(V2)
    assert list(await deployer.running()) == []


async def test_a_damaged_note_is_named_and_hides_no_other_server(make_deployer: MakeDeployer, tmp_path: Path) -> None:
    deployer = make_deployer()
    await deployer.ensure(V2)
    other = a_revision("v3")
    state_of(tmp_path, other).parent.mkdir()
    state_of(tmp_path, other).write_text('{"server": {"port": "many"}}')
    with pytest.raises(DeployError, match=r"server\.json is damaged: .* by hand, then delete it"):
        await deployer.ensure(other)
    await seen(deployer, InstanceState.READY)
    (damaged,) = await deployer.observe([other])
    assert damaged.state is InstanceState.DEAD
    assert "server.json is damaged" in damaged.detail
    assert list(await deployer.running()) == [V2.id]


async def test_a_note_that_cannot_be_written_hides_no_death(
    make_deployer: MakeDeployer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deployer = make_deployer()
    await deployer.ensure(V2)
    (blocked := state_of(tmp_path).with_suffix(".new")).mkdir()
    os.kill(pid_of(tmp_path), signal.SIGKILL)
    await seen(deployer, InstanceState.DEAD)
    assert "cannot write" in caplog.text
    blocked.rmdir()
    await deployer.ensure(V2)
    await seen(deployer, InstanceState.READY)


async def test_an_endpoint_is_ready_when_it_says_so_and_starting_while_it_is_away(
    make_deployer: MakeDeployer, tmp_path: Path
) -> None:
    deployer = make_deployer()
    await deployer.ensure(V2)
    somebody = await seen(deployer, InstanceState.READY)
    endpoint = replace(V2, name="theirs", backend=RunningEndpoint(f"http://{somebody.address}"))
    assert list(await deployer.observe([endpoint])) == [Instance(endpoint.id, InstanceState.READY, somebody.address)]
    os.kill(pid_of(tmp_path), signal.SIGKILL)
    await seen(deployer, InstanceState.DEAD)
    (away,) = await deployer.observe([endpoint])
    assert away.state is InstanceState.STARTING
    assert away.detail == f"http://{somebody.address}/v2/health/ready does not answer: Connection refused"

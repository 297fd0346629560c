"""The demo's users: a scenario's real input as open-loop load, in a process of its own.

    python -m graylift.demo.traffic --scenario file-types --folder DIR --url http://127.0.0.1:8080 --seconds 90

Ends by itself after `--seconds`, at once on SIGTERM or SIGINT, and either way prints its report as JSON.
A process of its own, so that neither the controller nor the terminal view can delay a request.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from graylift.bench.load import LoadPlan, load
from graylift.bench.report import LoadReport, json_from_report
from graylift.demo.scenario import SCENARIOS, Scenario

IN_FLIGHT = 64
"""Fewer than a model server's queue takes: on a machine that cannot keep up, requests are shed here and counted as shed
instead of looking like failures of the service."""


def main(arguments: Sequence[str] | None = None) -> None:
    by_name = {scenario.name: scenario for scenario in SCENARIOS}
    parser = argparse.ArgumentParser(prog="python -m graylift.demo.traffic", description="Send a demo's real input.")
    parser.add_argument("--scenario", choices=tuple(by_name), default=SCENARIOS[0].name)
    parser.add_argument("--folder", type=Path, required=True, help="where the scenario was prepared")
    parser.add_argument("--url", required=True, help="of the gateway: http://host:port")
    parser.add_argument("--rate", type=float, help="requests a second; default: what the scenario was tuned for")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0, help="equal seeds send equal requests at equal times")
    options = parser.parse_args(arguments)
    scenario = by_name[options.scenario]
    plan = LoadPlan(
        url=options.url.rstrip("/"),
        rate_per_s=scenario.rate_per_s if options.rate is None else options.rate,
        duration_s=options.seconds,
        seed=options.seed,
        max_in_flight=IN_FLIGHT,
    )
    try:
        report = uvloop.run(_send(plan, scenario, options.folder))
    except FileNotFoundError as error:
        parser.error(f"{options.folder} was not prepared for {scenario.name}: {error.filename} is missing")
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(json_from_report(report) + "\n")


async def _send(plan: LoadPlan, scenario: Scenario, folder: Path) -> LoadReport:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return await load(plan, scenario.requests(folder, plan.seed), stop)


if __name__ == "__main__":
    main()

"""Where adapters meet ports: a controller for this machine, from an installation. The only such place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from graylift.adapters.clock import SystemClock
from graylift.adapters.http_gates import HttpGates
from graylift.adapters.notifier import OutsideNotifier
from graylift.adapters.otlp import OtlpSource
from graylift.adapters.posts import Posts
from graylift.adapters.processes import ProcessDeployer
from graylift.adapters.prometheus import PrometheusSource
from graylift.adapters.sql_outbox import SqlOutbox
from graylift.adapters.sql_store import SqlStore
from graylift.checks.checklist import LocalChecklist
from graylift.cli.desk import holder
from graylift.cli.installation import Installation
from graylift.controller import Controller
from graylift.errors import CommandRefused
from graylift.gateway.agent import GatewayAgent
from graylift.gateway.config import GatewayConfig
from graylift.ports import MetricSource

GATEWAY_NAME = "local"


def gateway_of(installation: Installation) -> GatewayAgent:
    return GatewayAgent(
        GatewayConfig(
            name=GATEWAY_NAME,
            state_dir=installation.gateway,
            listen_host=installation.listen_host,
            listen_port=installation.listen_port,
            envoy=installation.envoy,
            limits_store=installation.limits_store,
        )
    )


def deployer_of(installation: Installation) -> ProcessDeployer:
    return ProcessDeployer(installation.servers, installation.artefacts)


def controller_of(
    installation: Installation,
    store: SqlStore,
    agent: GatewayAgent,
    deployer: ProcessDeployer,
    posts: Posts,
    metrics: Sequence[MetricSource] = (),
) -> Controller:
    return Controller(
        store=store,
        router=agent,
        evidence=agent,
        deployer=deployer,
        checklist=LocalChecklist(installation.artefacts),
        clock=SystemClock(),
        holder=holder(),
        metrics=metrics,
        gates=HttpGates(posts),
        outbox=SqlOutbox(store),
        notifier=OutsideNotifier(posts),
    )


@asynccontextmanager
async def control(installation: Installation, store: SqlStore) -> AsyncGenerator[asyncio.Task[None]]:
    """A controller with its gateway agent, acting while the block is open. Yields the controller's task.

    Leaving the block ends the control plane alone: Envoy and the model servers serve on, and whoever opens the next
    block adopts them. CommandRefused if the API's port is taken.
    """
    from graylift.api import ApiServer, create_app, is_loopback  # FastAPI takes as long to import as all the rest

    if not is_loopback(installation.api_host) and not any(token.is_good(time.time()) for token in store.tokens()):
        raise CommandRefused(
            f"the API on {installation.api_host} would be in reach of other machines, and nobody has a token: "
            "graylift token create --role admin --name NAME, or --api 127.0.0.1:0"
        )
    installation.remember()
    agent = gateway_of(installation)
    deployer = deployer_of(installation)
    prometheus, otlp, posts = PrometheusSource(), OtlpSource(), Posts()
    app = create_app(store, agent, otlp, SystemClock(), installation.api_host)
    api = ApiServer(app, installation.api_host, installation.api_port)
    stop = asyncio.Event()
    await agent.start()
    try:
        await api.start()
        installation.say_api(api.address)
        controller = controller_of(installation, store, agent, deployer, posts, (prometheus, otlp))
        task = asyncio.create_task(controller.run(stop), name="controller")
        try:
            yield task
        finally:
            stop.set()
            await task
    finally:
        await api.close()
        await posts.close()
        await prometheus.close()
        await deployer.close()
        await agent.close()


async def end_everything(installation: Installation) -> None:
    """End the model servers and the gateway of an installation; idempotent. No controller may be acting on it."""
    deployer = deployer_of(installation)
    try:
        # First the gateway, which takes nothing new and waits for what runs: so no server is asked any more.
        await gateway_of(installation).shutdown()
        for revision_id in await deployer.running():
            await deployer.stop(revision_id)
        while await deployer.ending():  # noqa: ASYNC110 - other processes end, and they set no event
            await asyncio.sleep(0.1)
    finally:
        await deployer.close()

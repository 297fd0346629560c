"""`graylift`: the commands as people type them. What they do is in `commands.py`, imported when one is carried out:
`graylift --help` and shell completion must not wait for a database and an HTTP client.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from graylift.cli.installation import DEFAULT_LISTEN
from graylift.cli.method import Method
from graylift.cli.reporting import ReportFormat
from graylift.demo.catalogue import ENTRIES, Variant
from graylift.domain.access import Rank
from graylift.domain.engine import Precision, Runtime
from graylift.domain.release import CommandKind
from graylift.errors import CommandRefused, EngineError, GrayliftError, SpecError

app = typer.Typer(
    name="graylift",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Put a new version of a model into production a little at a time; take it back by itself when it is worse.",
    epilog="Start with [bold]graylift demo[/bold], then [bold]graylift validate FILE[/bold] and "
    "[bold]graylift run FILE[/bold] with your own model. Exit codes: 0 done, 1 our failure, 2 wrong file or use, "
    "3 rolled back or FAIL, 4 rejected before traffic, 5 INCONCLUSIVE, 130 interrupted.",
)

RELEASES = "Releases"
ENGINES = "Engines"
STEERING = "Steering a release"
LOOKING = "Looking"
JUDGING = "Judging and planning"

profile = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich", help="Profiles: the shapes an engine is built for."
)
app.add_typer(profile, name="profile", rich_help_panel=ENGINES)
token = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Tokens: who may use the API, and for what.")
app.add_typer(token, name="token", rich_help_panel=STEERING)

State = Annotated[
    Path | None,
    typer.Option(
        "--state",
        envvar="GRAYLIFT_STATE",
        help="Directory that holds everything of one installation. Default: .graylift",
        show_default=False,
    ),
]
Listen = Annotated[
    str | None,
    typer.Option(
        "--listen",
        envvar="GRAYLIFT_LISTEN",
        metavar="HOST:PORT",
        help=f"Where clients reach the gateway. Default: as the state directory remembers, else {DEFAULT_LISTEN}.",
        show_default=False,
    ),
]
Envoy = Annotated[
    Path | None,
    typer.Option("--envoy", envvar="GRAYLIFT_ENVOY", help="Your own Envoy binary (1.40) instead of the packaged one."),
]
Api = Annotated[
    str | None,
    typer.Option(
        "--api",
        envvar="GRAYLIFT_API",
        metavar="HOST:PORT",
        help="Where the HTTP API listens while this runs; port 0 for a free one, which `graylift status` tells. "
        "Default: as the state directory remembers, else a free port of 127.0.0.1.",
        show_default=False,
    ),
]
LimitsStore = Annotated[
    str | None,
    typer.Option(
        "--limits-store",
        envvar="GRAYLIFT_LIMITS_STORE",
        metavar="valkey://HOST:PORT",
        help="Where several gateways share the budgets of limits. Default: as the state directory remembers, else "
        "memory, each gateway for itself.",
        show_default=False,
    ),
]
Plain = Annotated[bool, typer.Option("--plain", help="Lines instead of the live view, also on a terminal.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, for scripts.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it stays in the events and in the report.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The release file.")]
Service = Annotated[str, typer.Argument(metavar="NAME", help="A service, and so its newest release.")]
Rules = Annotated[
    Path | None,
    typer.Option("--spec", metavar="FILE", help="A release file, for its judge and stages; its models may be missing."),
]
AnyName = Annotated[str, typer.Argument(metavar="NAME", help="A service (its newest release), or a release id.")]


def _say_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"graylift {version('graylift')}\n")
        raise typer.Exit


@app.callback()
def graylift(
    *,
    wanted: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Say which version this is.")
    ] = False,
) -> None:
    """What holds for every command."""


@app.command(rich_help_panel=RELEASES)
def run(
    file: File,
    state: State = None,
    listen: Listen = None,
    envoy: Envoy = None,
    api: Api = None,
    limits_store: LimitsStore = None,
    *,
    plain: Plain = False,
) -> None:
    """Run one release to its end: check, start, shift traffic stage by stage, promote or roll back.

    Starts what is not running yet (gateway, model servers) and leaves it running: the gateway goes on serving after the
    release, [bold]graylift down[/bold] ends it. Ctrl-C stops the watching and deciding, not the traffic: it keeps its
    split, and the same command goes on where the release stands.
    """
    with _explained():
        from graylift.cli import commands

        raise typer.Exit(commands.run(file, state, listen, envoy, api, limits_store, plain=plain))


@app.command(rich_help_panel=RELEASES)
def up(
    state: State = None,
    listen: Listen = None,
    envoy: Envoy = None,
    api: Api = None,
    limits_store: LimitsStore = None,
) -> None:
    """Keep gateway, model servers and controller up, for any number of services, until Ctrl-C or SIGTERM.

    Start releases beside it with [bold]graylift run FILE[/bold]. Stopping it leaves the gateway and the servers
    serving; the next [bold]graylift up[/bold] adopts them. [bold]graylift down[/bold] ends everything.
    """
    with _explained():
        from graylift.cli import commands

        commands.up(state, listen, envoy, api, limits_store)


@app.command(rich_help_panel=RELEASES)
def down(state: State = None) -> None:
    """End the gateway and all model servers of this installation. What is stored stays."""
    with _explained():
        from graylift.cli import commands

        commands.down(state)


@app.command(rich_help_panel=RELEASES)
def validate(file: File, *, as_json: AsJson = False) -> None:
    """Check a release file: every mistake at once, each with its line, column and cure. Exit 0 if there is none."""
    with _explained():
        from graylift.cli import looking

        raise typer.Exit(looking.validate(file, as_json=as_json))


@app.command(
    rich_help_panel=RELEASES,
    epilog="Scenarios. " + " ".join(f"[bold]{entry.name}[/bold]: {entry.what}" for entry in ENTRIES),
)
def demo(
    scenario: Annotated[str, typer.Argument(help="What to release.")] = ENTRIES[0].name,
    folder: Annotated[Path, typer.Option(help="Where models, release files and reports are written.")] = Path(
        "graylift-demo"
    ),
    only: Annotated[
        Variant | None,
        typer.Option(help="One release alone: the good or the bad candidate, a slow one, or the same model twice."),
    ] = None,
    *,
    plain: Plain = False,
) -> None:
    """Two whole releases of a real model under load: a good candidate is promoted, a bad one rolled back."""
    with _explained():
        from graylift.cli import commands

        raise typer.Exit(commands.demo(scenario, folder, only, plain=plain))


@app.command(
    rich_help_panel=RELEASES,
    epilog="What each check asks, how it measures and what to do when it fails: docs/checks.md.",
)
def check(
    file: File,
    state: State = None,
    *,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the evidence of each check, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Build both sides of a release and run the whole checklist on them, without a gateway and without any user.

    One line a check, as it ends: PASS, FAIL, INCONCLUSIVE or SKIPPED, and one sentence with both numbers.
    [bold]graylift run[/bold] does the same before its first stage. Exit 0 if all pass or are skipped, 4 if not.
    """
    with _explained():
        from graylift.cli import checking

        raise typer.Exit(checking.check(file, state, as_json=as_json, verbose=verbose))


@app.command(
    rich_help_panel=ENGINES,
    epilog="Example: [bold]graylift build model.onnx --precision fp16 --profile input_ids=1x8,8x128,32x512 "
    "--profile attention_mask=1x8,8x128,32x512[/bold]. An input that is named again begins the next profile.",
)
def build(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL.onnx", help="The model; its external data lies beside it. For --runtime pytorch a .pt2."
        ),
    ],
    runtime: Annotated[Runtime, typer.Option(help="What will execute it.")] = Runtime.ONNXRUNTIME,
    precision: Annotated[
        Precision, typer.Option(help="The numbers it computes with; fp32 lowers nothing.")
    ] = Precision.FP32,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MIN,OPT,MAX", help="Shapes of one input to build for. Repeatable; default: every shape."
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads for one inference.")] = 1,
    calibration: Annotated[
        Path | None, typer.Option(help="Real inputs (.npz, samples along the first axis), for int8 alone.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the runtime, as in provider=cuda. Repeatable."),
    ] = None,
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Build an engine from an ONNX file into the artefact store, or find it there if it was built before.

    Says its digest, size, build time, precision, profiles and place. Ctrl-C leaves nothing half-built.
    """
    with _explained():
        from graylift.cli import building

        asked = (model, runtime, precision, profile or (), threads, calibration, settings or ())
        raise typer.Exit(building.build(*asked, state, as_json=as_json))


@app.command(rich_help_panel=ENGINES)
def inspect(
    target: Annotated[
        str, typer.Argument(metavar="ENGINE", help="Its digest, the beginning of that, or a path in its folder.")
    ],
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """What an engine takes and gives, for which shapes, in which precision, from what, by what; may it run here?

    Its bytes are compared with its digest; a damaged engine is refused.
    """
    with _explained():
        from graylift.cli import inspecting

        inspecting.inspect(target, state, as_json=as_json)


@app.command(
    rich_help_panel=ENGINES,
    epilog="Example: [bold]graylift serve model.onnx --name classify --latency-target 50ms[/bold], then "
    "[bold]graylift bench http://127.0.0.1:8000 --name classify[/bold]. What each choice costs: docs/serving.md.",
)
def serve(
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="An ONNX file, which is built first, or an engine (digest or path).")
    ],
    name: Annotated[str, typer.Option(help="The model name that clients use.")] = "model",
    host: Annotated[
        str, typer.Option(help="Address to listen on. 0.0.0.0 lets other machines in; there is no authentication.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port. 0: any free one.")] = 8000,
    grpc_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Speak the protocol's gRPC form, too, here.", show_default=False),
    ] = None,
    contexts: Annotated[
        str,
        typer.Option(
            metavar="N|auto",
            help="Inferences at once. More: throughput where one leaves cores idle, for memory and for the latency of "
            "each. auto tries 1, 2, 4... and takes as few as give nearly the best; each try loads it anew.",
        ),
    ] = "auto",
    max_batch: Annotated[
        str,
        typer.Option(
            metavar="ROWS|auto",
            help="Rows that may share one inference. More: throughput, for the latency of those that wait meanwhile. "
            "auto measures 1, 2, 4... and takes as few as give nearly the best. 1 runs each request alone.",
        ),
    ] = "auto",
    max_queue_delay: Annotated[
        str,
        typer.Option(
            help="How long a request may wait for company while a context is free. More: larger batches under light "
            "load, for its latency. At 0s batches form while all contexts are busy."
        ),
    ] = "0s",
    latency_target: Annotated[
        str | None,
        typer.Option(
            help="What a request may take while the server keeps up, as in 50ms: batches stay so small. Tighter: less "
            "throughput.",
            show_default=False,
        ),
    ] = None,
    max_queue: Annotated[
        int,
        typer.Option(
            min=0,
            help="Requests that may wait; the next one gets 503 and Retry-After. More: fewer refusals in a burst, for "
            "answers that come later than anybody wants them.",
        ),
    ] = 256,
    max_body: Annotated[
        int, typer.Option(min=1, help="Longest request in bytes; a longer one gets 413. More: memory for each client.")
    ] = 64 * 2**20,
    drain_timeout: Annotated[
        str,
        typer.Option(help="What running requests may take after Ctrl-C or SIGTERM, before they are cut off."),
    ] = "20s",
    runtime: Annotated[Runtime, typer.Option(help="What executes an ONNX file.")] = Runtime.ONNXRUNTIME,
    precision: Annotated[
        Precision, typer.Option(help="The numbers it computes with: lower is faster, for its answers.")
    ] = Precision.FP32,
    profile: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MIN,OPT,MAX",
            help="Shapes of one input to build for. Narrower: faster, and less memory; other shapes are refused. "
            "Repeatable; default: every shape.",
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(
            min=1, max=256, help="Threads for one inference. More: the latency of one request, for throughput of many."
        ),
    ] = 1,
    state: State = None,
) -> None:
    """Serve one model by itself, over the Open Inference Protocol v2, without a release and without a gateway.

    Says what it loaded, and which batches and contexts it chose by which measurements; is ready after warm-up
    (GET /v2/health/ready). Ctrl-C and SIGTERM let what runs finish.
    """
    with _explained():
        from graylift.cli import serving

        serving.serve(
            target,
            serving.Wishes(
                name=name,
                host=host,
                port=port,
                grpc_port=grpc_port,
                contexts=contexts,
                max_batch=max_batch,
                max_queue_delay=max_queue_delay,
                latency_target=latency_target,
                max_queue=max_queue,
                max_body=max_body,
                drain_timeout=drain_timeout,
            ),
            serving.Source(runtime, precision, tuple(profile or ()), threads),
            state,
        )


@app.command(
    rich_help_panel=ENGINES,
    epilog="Examples: [bold]graylift bench v1.onnx v2.onnx --rate 50/s --duration 30s[/bold]; "
    "[bold]graylift bench http://127.0.0.1:8000 --name resnet --concurrency 8[/bold].",
)
def bench(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="An ONNX file, a program of PyTorch (.pt2), an engine (digest or path), or http://HOST:PORT.",
        ),
    ],
    other: Annotated[
        str | None, typer.Argument(metavar="[TARGET2]", help="Another one, measured in turn with the first.")
    ] = None,
    rate: Annotated[
        str | None,
        typer.Option(help="Open loop: requests at times fixed ahead, as in 50/s. Default: 20/s.", show_default=False),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Closed loop instead: this many callers, each waiting for its answer."),
    ] = None,
    duration: Annotated[str, typer.Option(help="How long each target is loaded: 1s to 1h.")] = "10s",
    name: Annotated[str | None, typer.Option(help="The model's name at an endpoint.")] = None,
    samples: Annotated[
        Path | None, typer.Option(help="Real inputs (.npz, samples along the first axis); made up without.")
    ] = None,
    runtime: Annotated[Runtime, typer.Option(help="What executes an ONNX file.")] = Runtime.ONNXRUNTIME,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads for one inference of an ONNX file.")] = 1,
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Latency and throughput of one engine or endpoint; of two, interleaved, with the ratios and their intervals.

    Exit 1 if requests failed or the load generator itself was late: then the numbers say so.
    """
    with _explained():
        from graylift.cli import benching

        targets = [target] if other is None else [target, other]
        code = benching.bench(
            targets, rate, concurrency, duration, name, samples, runtime, threads, state, as_json=as_json
        )
        raise typer.Exit(code)


@profile.command(
    epilog="Records: what a model server answers at /v2/models/SERVICE/shapes, JSON lines as in "
    '{"input_ids": [1, 128]}, or an .npz of samples (one request each).'
)
def suggest(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Shapes that requests had.")],
    most: Annotated[int, typer.Option(min=1, max=16, help="Profiles at most; fewer if that is as good.")] = 3,
    *,
    as_json: AsJson = False,
) -> None:
    """Propose min, opt and max out of recorded requests, as text for the release file and for [bold]build[/bold]."""
    with _explained():
        from graylift.cli import suggesting

        suggesting.suggest(file, most, as_json=as_json)


@app.command(rich_help_panel=STEERING)
def promote(name: Service, reason: Reason = "", state: State = None) -> None:
    """Go on to the next stage now, without waiting for the rest of this one."""
    _steer(CommandKind.PROMOTE, name, reason, state)


@app.command(rich_help_panel=STEERING)
def pause(name: Service, reason: Reason = "", state: State = None) -> None:
    """Hold the release where it is; the split stays. A failing candidate is still rolled back."""
    _steer(CommandKind.PAUSE, name, reason, state)


@app.command(rich_help_panel=STEERING)
def resume(name: Service, reason: Reason = "", state: State = None) -> None:
    """Let a paused release go on."""
    _steer(CommandKind.RESUME, name, reason, state)


@app.command(rich_help_panel=STEERING)
def approve(name: Service, reason: Reason = "", state: State = None) -> None:
    """Approve the current stage, where the release file asks for it."""
    _steer(CommandKind.APPROVE, name, reason, state)


@app.command(rich_help_panel=STEERING)
def abort(name: Service, reason: Reason = "", state: State = None) -> None:
    """Take the candidate back now. Works with no controller running, too, and waits until the rollback is verified."""
    _steer(CommandKind.ABORT, name, reason, state)


@app.command(rich_help_panel=STEERING)
def retry(name: Service, reason: Reason = "", state: State = None) -> None:
    """Begin a new attempt with the same release file, after a rollback or a rejection."""
    _steer(CommandKind.RETRY, name, reason, state)


@app.command(rich_help_panel=LOOKING)
def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A service or a release; all without.")] = None,
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Where things stand: each service, its stable revision, its newest release; one release in full with NAME."""
    with _explained():
        from graylift.cli import looking

        looking.status(name, state, as_json=as_json)


@app.command(rich_help_panel=LOOKING)
def events(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A service; all without.")] = None,
    state: State = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as new ones come, until Ctrl-C.")] = False,
    as_json: AsJson = False,
) -> None:
    """What happened, oldest first: who did what, when, and why. With --json one object a line."""
    with _explained():
        from graylift.cli import looking

        looking.events(name, state, follow=follow, as_json=as_json)


@app.command(rich_help_panel=LOOKING)
def report(
    name: AnyName,
    form: Annotated[ReportFormat, typer.Option("--format", "-f", help="html has the plots.")] = ReportFormat.MARKDOWN,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write; standard output without.")] = None,
    state: State = None,
) -> None:
    """One page about one release, fit for a change ticket: outcome, timeline, stages, verdicts, digests."""
    with _explained():
        from graylift.cli import looking

        looking.report(name, form, out, state)


@app.command(rich_help_panel=LOOKING)
def explain(name: AnyName, state: State = None) -> None:
    """Retell one release in plain words: its checks, each stage, each verdict with its numbers, why it ended so."""
    with _explained():
        from graylift.cli import looking

        looking.explain(name, state)


@app.command(rich_help_panel=JUDGING)
def judge(
    stable: Annotated[Path, typer.Option("--stable", metavar="FILE", help="Recorded requests of stable.")],
    candidate: Annotated[Path, typer.Option("--candidate", metavar="FILE", help="Recorded requests of the candidate.")],
    spec: Rules = None,
    method: Annotated[
        Method, typer.Option("--method", help="The judge of releases, or Kayenta's rules for comparison.")
    ] = Method.ANYTIME,
    *,
    as_json: AsJson = False,
) -> None:
    """Judge recorded requests as a release would have been judged: exit 0 PASS, 3 FAIL, 5 INCONCLUSIVE.

    Files are CSV, JSON lines or Parquet with the columns [bold]time[/bold] (epoch seconds or ISO 8601, when the request
    ended), [bold]status[/bold], [bold]latency_ms[/bold], and [bold]weight[/bold] (the candidate's, in percent) if it
    changed. Without a release file its default margins hold.
    """
    with _explained():
        from graylift.cli import judging

        raise typer.Exit(judging.judge(stable, candidate, spec, method, as_json=as_json))


@app.command(rich_help_panel=JUDGING)
def plan(
    file: File,
    rate: Annotated[str, typer.Option("--rate", help="Requests of both arms together: 40/s, 90/m, 500/h.")],
    errors: Annotated[str, typer.Option("--errors", help="The share of requests that stable fails.")] = "0.5%",
    latency: Annotated[
        str, typer.Option("--latency", help="Quantiles of stable's latency; how far they lie apart is what counts.")
    ] = "p50=80ms,p99=260ms",
    ttft: Annotated[
        str, typer.Option("--ttft", help="Quantiles of stable's time to first token, if that is judged.")
    ] = "p50=200ms,p95=600ms",
    tpot: Annotated[
        str, typer.Option("--tpot", help="Quantiles of stable's time per output token, if that is judged.")
    ] = "p50=20ms,p95=30ms",
    scores: Annotated[
        str, typer.Option("--scores", help="Mean and spread of stable's scores, and the share of requests with one.")
    ] = "mean=0.8,sd=0.2,of=10%",
    *,
    as_json: AsJson = False,
) -> None:
    """How long each stage of a release file takes until it likely passes, and what regression it would catch.

    Warns of a stage that would not conclude within a day, with what would help. Nothing is started.
    """
    with _explained():
        from graylift.cli import planning

        traffic = planning.traffic_from(rate, errors, latency=latency, ttft=ttft, tpot=tpot, scores=scores)
        planning.plan(file, traffic, as_json=as_json)


@app.command(rich_help_panel=JUDGING)
def calibrate(
    file: Annotated[
        list[Path] | None,
        typer.Option("--file", metavar="FILE", help="Recorded requests: one file a replica, or a column `replica`."),
    ] = None,
    service: Annotated[
        str | None, typer.Option("--service", metavar="NAME", help="Stable's stored evidence of a service instead.")
    ] = None,
    spec: Rules = None,
    state: State = None,
    *,
    as_json: AsJson = False,
) -> None:
    """How much copies of one model differ by themselves, and so how narrow a latency margin may be.

    With [bold]--spec[/bold] the file's rollback margins are held against it: exit 2 if one is below the noise floor,
    with the margins to write instead.
    """
    with _explained():
        from graylift.cli import calibrating

        raise typer.Exit(calibrating.calibrate(file or (), service, spec, state, as_json=as_json))


@token.command("create")
def create_token(
    name: Annotated[str, typer.Option("--name", help="Whose it is; stands in the events.")],
    role: Annotated[Rank, typer.Option("--role", help="Viewers see, operators and admins command.")] = Rank.VIEWER,
    days: Annotated[float | None, typer.Option("--days", min=0, help="Good for so long. Default: for ever.")] = None,
    state: State = None,
) -> None:
    """Print a new token, once: only its hash is kept. From the first one on, the API asks everybody for one."""
    with _explained():
        from graylift.cli import tokens

        tokens.create(name, role, days, state)


@token.command("list")
def list_tokens(state: State = None) -> None:
    """Who has a token, of which role, and whether it is good."""
    with _explained():
        from graylift.cli import tokens

        tokens.show(state)


@token.command("revoke")
def revoke_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose token ends.")], state: State = None
) -> None:
    """End a token; it is refused from the next request on."""
    with _explained():
        from graylift.cli import tokens

        tokens.revoke(name, state)


def _steer(kind: CommandKind, name: str, reason: str, state: Path | None) -> None:
    with _explained():
        from graylift.cli import commands

        commands.steer(kind, name, reason, state)


@contextmanager
def _explained() -> Generator[None]:
    """Turn our errors into a message and an exit code. Anything else is a defect of ours and keeps its traceback."""
    try:
        yield
    except SpecError as exc:
        count = len(exc.problems)
        _fail(f"{exc}\n\n{count} mistake{'' if count == 1 else 's'}; nothing was started", 2)
    except (CommandRefused, EngineError) as exc:
        _fail(f"graylift: {exc}", 2)
    except GrayliftError as exc:
        _fail(f"graylift: {exc}", 1)
    except KeyboardInterrupt:
        _fail("interrupted", 130)


def _fail(message: str, code: int) -> NoReturn:
    sys.stderr.write(message + "\n")
    raise typer.Exit(code) from None

"""What happens before a server is ready: load, warm up, ask whether rows may share a run, measure, choose.

Runs in a context's thread; the loop answers health checks meanwhile. What was found and chosen, and why, is logged:
those lines are what a person reads first. Called by `server`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from graylift.domain.engine import Manifest, Runtime
from graylift.domain.spec import AUTO
from graylift.engine.artefacts import ArtefactStore
from graylift.engine.load import load
from graylift.errors import EngineError
from graylift.serve import measuring
from graylift.serve.model import ServedModel, served_model
from graylift.serve.options import MOST_CONTEXTS, Options
from graylift.serve.policy import BatchPolicy
from graylift.serve.sizing import Cost, choose_contexts, choose_rows
from graylift.serve.stacking import elements_of, objection
from graylift.serve.warmup import WarmUp, warm

log = logging.getLogger(__name__)

_QUICK_S = 200e-6
"""A run that is given to another thread comes back some 100 us later, and the two threads fight for the interpreter."""
_LOOPS = frozenset({"Loop", "Scan", "If"})
"""Operators whose time depends on values: what they cost on zeros says nothing."""


@dataclass(frozen=True, slots=True)
class Started:
    """What is served, and how.

    quick_elements: runs with no more elements than this are done in the event loop itself; 0: none
    """

    model: ServedModel
    manifest: Manifest
    contexts: int
    policy: BatchPolicy
    quick_elements: int


def start(options: Options, loaded: Callable[[ServedModel], None]) -> Started:
    """EngineError if the engine cannot be loaded. `loaded` hears of a model as soon as its metadata are known."""
    store = ArtefactStore(options.artefacts)
    manifest = store.manifest(options.artefact)
    contexts = 1 if options.contexts == AUTO else options.contexts
    model = _loaded(store, options, manifest, contexts)
    loaded(model)
    warmed = _warmed(model)
    why_not = None if options.max_batch == 1 else objection(model, warmed.size, model.profiles)
    may_batch = options.max_batch != 1 and why_not is None
    most = options.max_batch if options.max_batch != AUTO else measuring.MOST_ROWS
    must_measure = AUTO in (options.contexts, options.max_batch) or options.latency_target_s is not None
    costs: list[Cost] = []
    if warmed.problem is None and (must_measure or warmed.last_s <= _QUICK_S):
        costs = measuring.costs(model, model.profiles, most if may_batch else 1)
    rows = _rows(options, costs, why_not)
    if options.contexts == AUTO:
        model, contexts = _with_best_contexts(store, options, manifest, model, rows)
        loaded(model)
    delay_s = options.max_queue_delay_s if rows > 1 else 0.0
    return Started(
        model, manifest, contexts, BatchPolicy(rows, delay_s), _quick_elements(store, model, manifest, costs)
    )


def _loaded(store: ArtefactStore, options: Options, manifest: Manifest, contexts: int) -> ServedModel:
    began = time.monotonic()
    runner = load(store, options.artefact, contexts)
    model = served_model(runner, manifest.runtime.value, options.inputs, options.outputs, manifest.profiles)
    log.info(
        "loaded: %s, %s -> %s, in %.2f s",
        options.artefact,
        ", ".join(map(str, model.interface.inputs)),
        ", ".join(map(str, model.interface.outputs)),
        time.monotonic() - began,
    )
    return model


def _warmed(model: ServedModel) -> WarmUp:
    warmed = warm(model, profiles=model.profiles)
    if warmed.problem is None:
        log.info("warmed: %d runs, first %.1f ms, last %.1f ms", warmed.runs, warmed.first_s * 1e3, warmed.last_s * 1e3)
    else:
        log.warning("warmed: not fully (%d runs), it fails on zeros: %s", warmed.runs, warmed.problem)
    return warmed


def _rows(options: Options, costs: Sequence[Cost], why_not: str | None) -> int:
    """The rows that may share a run."""
    if options.max_batch == 1:
        return 1
    if why_not is None and not costs and (options.max_batch == AUTO or options.latency_target_s is not None):
        why_not = "what a run costs could not be measured with made-up inputs"
    if why_not is not None:
        log.warning("batching: off, each request runs alone: %s", why_not)
        return 1
    why = ""
    rows = options.max_batch
    if rows == AUTO or options.latency_target_s is not None:
        choice = choose_rows(costs, options.latency_target_s)
        rows, why = choice.number, f": {choice.why}"
    log.info("batching: up to %d rows a run, %g ms for company%s", rows, options.max_queue_delay_s * 1e3, why)
    return rows


def _with_best_contexts(
    store: ArtefactStore, options: Options, manifest: Manifest, model: ServedModel, rows: int
) -> tuple[ServedModel, int]:
    """The model with as many contexts as pay, by trying; `model`, which has one, is closed unless it is the best."""
    row = measuring.a_row(model, model.profiles)
    if row is None:
        log.warning("contexts: 1, since more could not be tried with made-up inputs")
        return model, 1
    tried = [measuring.throughput(model, row, rows, 1)]
    present, contexts = 1, 2
    while contexts <= _most_contexts(manifest):
        model.close()
        present = 0
        try:
            model = _loaded(store, options, manifest, contexts)
            present = contexts
            tried.append(measuring.throughput(model, row, rows, contexts))
        except EngineError as exc:  # no memory for so many, as a rule
            log.info("contexts: %d are too many: %s", contexts, exc)
            break
        if choose_contexts(tried).number != contexts:
            break
        contexts *= 2
    choice = choose_contexts(tried)
    log.info("contexts: %d (%s)", choice.number, choice.why)
    if present != choice.number:
        if present:
            model.close()
        model = _loaded(store, options, manifest, choice.number)
        warm(model, profiles=model.profiles)
    return model, choice.number


def _most_contexts(manifest: Manifest) -> int:
    match manifest.runtime:
        case Runtime.ONNXRUNTIME | Runtime.OPENVINO | Runtime.PYTORCH:
            return min(len(os.sched_getaffinity(0)), MOST_CONTEXTS)
        case Runtime.TENSORRT | Runtime.TENSORRT_RTX:
            return MOST_CONTEXTS
        case Runtime.OPENVINO_GENAI:
            raise EngineError("a language engine has streams, not contexts; serve it with --context-length")
        case _:
            assert_never(manifest.runtime)


def _quick_elements(store: ArtefactStore, model: ServedModel, manifest: Manifest, costs: Sequence[Cost]) -> int:
    """How many elements the inputs of a run may have for it to be quick for certain: as many as were measured, of
    a model whose time depends on their number alone."""
    quick = [cost.rows for cost in costs if cost.seconds <= _QUICK_S]
    row = measuring.a_row(model, model.profiles) if quick else None
    if row is None or any(spec.datatype == "BYTES" for spec in model.interface.inputs):
        return 0
    try:
        operators = {operator for operator, _ in store.inspect(manifest.digest).graph}
    except EngineError:  # its list of operators is for people; without it nothing is certain
        return 0
    if operators & _LOOPS:
        return 0
    log.info(
        "quick: runs of up to %d rows take under %.1f ms and are done in the event loop", quick[-1], _QUICK_S * 1e3
    )
    return quick[-1] * elements_of(row)

"""OpenVINO GenAI on the CPU: the only module that imports it. Reached through `language`, never directly.

One thread owns the pipeline: it takes new prompts, makes one step for all answers together (continuous batching), and
tells each its new tokens. The others only leave commands for it.

Pinned, since by themselves they change results silently or crash: the precision of the arithmetic. On processors with
bfloat16 the runtime would use that, which differs from machine to machine, and with a single thread it then ends the
process (division by zero) on files in f16; with a hint of f16 it computes NaN. Dynamic quantisation of activations is
off. Threads are not pinned to cores: those of two servers would sit on the same ones.
"""

# What comes from the vendor is unknown to the type checker, and given a type at once here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportAttributeAccessIssue=false, reportUnknownParameterType=false

from __future__ import annotations

import math
import secrets
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

# On import, openvino reports its use to its makers over the network, unless this package is not there.
sys.modules.setdefault("openvino_telemetry", cast("Any", None))
import openvino as ov  # noqa: E402
import openvino_genai as genai  # noqa: E402

from graylift.domain.engine import Manifest  # noqa: E402
from graylift.engine.answer_text import AnswerText  # noqa: E402
from graylift.engine.language import LanguageSettings, Tell  # noqa: E402
from graylift.engine.runner import check_version, why_other_version  # noqa: E402
from graylift.errors import EngineError, InputError  # noqa: E402
from graylift.protocols.language import Finish, Message, Piece, Sampling  # noqa: E402

_PACKAGE = "openvino-genai"
_VERSION = str(genai.__version__).split("-", maxsplit=1)[0]
_BLOCK_TOKENS = 32
"""Of the cache, as the runtime divides it on a CPU."""


def versions() -> tuple[tuple[str, str], ...]:
    return ((_PACKAGE, _VERSION),)


def why_not_here(manifest: Manifest) -> str | None:
    """It runs under the release that it was checked with."""
    return why_other_version(manifest, _PACKAGE, _VERSION)


def load(engine: Path, manifest: Manifest | None, settings: LanguageSettings) -> OpenVinoGenAiRunner:
    if manifest is not None:
        check_version(engine, manifest, _PACKAGE, _VERSION)
    scheduling = genai.SchedulerConfig()
    scheduling.max_num_seqs = settings.max_streams
    # Room for every stream at its longest: none is ever put back to be computed again.
    scheduling.num_kv_blocks = settings.max_streams * (math.ceil(settings.context_length / _BLOCK_TOKENS) + 1)
    properties = {
        "INFERENCE_NUM_THREADS": settings.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "ENABLE_CPU_PINNING": False,
    }
    try:
        pipeline = genai.ContinuousBatchingPipeline(str(engine), scheduling, "CPU", properties)
        return OpenVinoGenAiRunner(pipeline, settings.max_streams)
    except RuntimeError as exc:
        raise EngineError(f"{engine}: OpenVINO GenAI {_VERSION} cannot load it: {_sentence(exc)}") from exc


@dataclass(eq=False, slots=True)
class _Answer:
    """One answer, from its prompt on. handle: None until it is begun"""

    prompt: Any
    config: Any
    tell: Tell
    text: AnswerText
    handle: Any = None
    cancelled: bool = False
    untold: int = 0
    """Tokens whose text is withheld."""

    def cancel(self) -> None:
        self.cancelled = True  # seen by the thread before its next step


@dataclass(eq=False, slots=True)
class _Scoring:
    """Log-probabilities of a prompt, on their way."""

    prompt: Any
    config: Any
    done: threading.Event = field(default_factory=threading.Event)
    handle: Any = None
    found: list[float] = field(default_factory=list[float])
    problem: str | None = None
    cancelled: bool = False


class OpenVinoGenAiRunner:
    """A `LanguageRunner`."""

    def __init__(self, pipeline: Any, max_streams: int) -> None:
        self._pipeline = pipeline
        self._tokenizer = pipeline.get_tokenizer()
        self._end_of_text = self._tokenizer.get_eos_token_id()
        vocabulary = self._tokenizer.get_vocab()
        self._vocabulary = len(vocabulary)
        self._longest = max(map(len, vocabulary), default=1) or 1
        self._max_streams = max_streams
        self._changed = threading.Condition()
        self._waiting: deque[_Answer | _Scoring] = deque()
        self._running: list[_Answer | _Scoring] = []
        self._numbered = 0
        self._closing = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._work, name="language engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def failure(self) -> str | None:
        return self._failure

    @property
    def vocabulary(self) -> int:
        return self._vocabulary

    @property
    def longest_token_bytes(self) -> int:
        return self._longest

    def prompt_from_messages(self, messages: Sequence[Message]) -> str:
        history = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(self._tokenizer.apply_chat_template(history, add_generation_prompt=True))
        except RuntimeError as exc:
            raise InputError(f"the model's chat template refuses these messages: {_reason(exc)}") from exc

    def tokens_from_text(self, text: str) -> list[int]:
        try:
            encoded = self._tokenizer.encode(text, add_special_tokens=False)
        except RuntimeError as exc:
            raise InputError("the text cannot be told in tokens") from exc
        return [int(token) for token in encoded.input_ids.data[0]]

    def answer(self, prompt: Sequence[int], sampling: Sampling, tell: Tell) -> _Answer:
        assert sampling.max_tokens is not None, "the caller knows the room that the context has"
        answer = _Answer(_tensor(prompt), self._config(sampling), tell, AnswerText(self._decode, sampling.stop))
        self._enqueue(answer)
        return answer

    def log_probabilities(self, tokens: Sequence[int]) -> list[float]:
        if len(tokens) < 2:
            return []
        config = genai.GenerationConfig(max_new_tokens=1, do_sample=False, echo=True, logprobs=1)
        scoring = _Scoring(_tensor(tokens), config)
        self._enqueue(scoring)
        scoring.done.wait()
        if scoring.problem is not None:
            raise EngineError(scoring.problem)
        # The echo begins with the first token, which has nothing before it, and ends with one that was written.
        found = scoring.found[1 : len(tokens)]
        if len(found) != len(tokens) - 1 or not np.isfinite(found).all():
            raise EngineError(f"the runtime gives no probabilities for {len(tokens)} tokens of a text")
        return found

    def close(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _enqueue(self, work: _Answer | _Scoring) -> None:
        with self._changed:
            if self._failure is None and not self._closing:
                self._waiting.append(work)
                self._changed.notify()
                return
        _fail(work, self._failure or "the engine is being closed")

    def _config(self, sampling: Sampling) -> Any:
        config = genai.GenerationConfig(max_new_tokens=sampling.max_tokens, do_sample=sampling.temperature > 0)
        config.set_eos_token_id(self._end_of_text)
        if sampling.temperature > 0:
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            config.rng_seed = secrets.randbits(63) if sampling.seed is None else sampling.seed
        config.presence_penalty = sampling.presence_penalty
        config.frequency_penalty = sampling.frequency_penalty
        return config

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True)) if tokens else ""

    # ---- in the thread

    def _work(self) -> None:
        why = "the language engine failed by a defect of its own"
        try:
            why = self._write_on()
        finally:  # whatever ended it: nobody waits for ever
            self._give_up(why)

    def _write_on(self) -> str:
        """Step by step, until there is a reason to end."""
        while True:
            with self._changed:
                while not (self._waiting or self._running or self._closing):
                    self._changed.wait()
                if self._closing:
                    return "the engine is being closed"
                begun = self._admitted()
                self._running += begun
            try:
                for work in begun:
                    self._numbered += 1
                    work.handle = self._pipeline.add_request(self._numbered, work.prompt, work.config)
                self._drop_cancelled()
                if self._pipeline.has_non_finished_requests():
                    self._pipeline.step()
                self._running = [work for work in self._running if not self._over(work)]
            except RuntimeError as exc:
                # A pipeline that failed in a step is not to be trusted with another one.
                return f"the language engine failed: {_sentence(exc)}"

    def _admitted(self) -> list[_Answer | _Scoring]:
        self._waiting = deque(work for work in self._waiting if not work.cancelled)
        free = self._max_streams - sum(not work.cancelled for work in self._running)
        return [self._waiting.popleft() for _ in range(min(free, len(self._waiting)))]

    def _drop_cancelled(self) -> None:
        for work in self._running:
            if work.cancelled:
                work.handle.cancel()
        self._running = [work for work in self._running if not work.cancelled]

    def _give_up(self, why: str) -> None:
        with self._changed:
            self._failure = why
            left = (*self._running, *self._waiting)
            self._running = []
            self._waiting.clear()
        for work in left:
            _fail(work, why)

    def _over(self, work: _Answer | _Scoring) -> bool:
        """Tell what this step gave; is that all?"""
        tokens: list[int] = []
        reason = genai.GenerationFinishReason.NONE
        while work.handle.can_read():
            for output in work.handle.read().values():
                tokens += output.generated_ids
                reason = output.finish_reason
                if isinstance(work, _Scoring):
                    work.found += output.generated_log_probs
        ended = work.handle.get_status() != genai.GenerationStatus.RUNNING and not work.handle.can_read()
        if isinstance(work, _Scoring):
            if ended:
                work.done.set()
            return ended
        if work.cancelled:
            work.handle.cancel()
            return True
        if not tokens and not ended:
            return False
        return _told(work, tokens, ended, reason)


def _told(answer: _Answer, tokens: Sequence[int], ended: bool, reason: Any) -> bool:
    answer.untold += len(tokens)
    text = answer.text.add(tokens)
    if answer.text.stopped and not ended:
        answer.handle.cancel()
        ended = True
    if not ended:
        if text:
            answer.tell(Piece(text, answer.untold))
            answer.untold = 0
        return False
    text += answer.text.end()
    is_full = reason == genai.GenerationFinishReason.LENGTH and not answer.text.stopped
    answer.tell(Piece(text, answer.untold, Finish.LENGTH if is_full else Finish.STOP))
    return True


def _fail(work: _Answer | _Scoring, why: str) -> None:
    if isinstance(work, _Scoring):
        work.problem = why
        work.done.set()
    elif not work.cancelled:
        work.tell(EngineError(why))


def _tensor(tokens: Sequence[int]) -> Any:
    return ov.Tensor(np.array([tokens], np.int64))


def _reason(exc: BaseException) -> str:
    """Why a template refused: its own words if it raised an exception on purpose, without what it was given."""
    text = _sentence(exc)
    return text if len(text) < 200 else text[:200] + "..."


def _sentence(exc: BaseException) -> str:
    """The runtime's message on one line, without the places in its own source files."""
    lines = [line.strip() for line in str(exc).splitlines() if not line.startswith(("Exception from ", "Check "))]
    return " ".join(" ".join(lines).split()) or type(exc).__name__

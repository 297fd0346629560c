"""How close two decoders are on a given text: arithmetic alone, numpy in, plain numbers out.

Texts that two decoders generate part ways at the first near tie, which says nothing of their quality. So both are
forced along one text, and asked at each token how likely the next one is. Called by `parity`.

perplexity  exp(mean over positions of -log p(next token)): how many tokens the model wavers between. The ratio of two
            perplexities is what a change costs.
KL          mean over positions of sum over tokens of p log(p / q), p the reference's distribution and q the other's, in
            nats: how much the distributions differ, whether or not that costs. Both are means of dependent positions;
            with fewer than some hundred of them they scatter widely.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graylift.protocols.datatypes import Tensor

LEAST_POSITIONS = 64
"""Fewer positions carry no verdict: the perplexity of a sentence or two is chance."""


@dataclass(frozen=True, slots=True)
class Forced:
    """Two decoders on one text, summed over its positions (those that have a next token).

    loss, reference_loss: nats
    top1:                 positions where both have the same most likely token
    broken:               positions where `given` is no distribution (NaN or infinity among its logits), and not counted
    """

    positions: int
    loss: float
    reference_loss: float
    divergence: float
    top1: int
    broken: int

    @property
    def perplexity_ratio(self) -> float | None:
        """Of the given to the reference. None without a position."""
        return math.exp(min(700.0, (self.loss - self.reference_loss) / self.positions)) if self.positions else None

    @property
    def perplexity(self) -> float | None:
        """Of the reference."""
        return math.exp(min(700.0, self.reference_loss / self.positions)) if self.positions else None

    @property
    def mean_divergence(self) -> float | None:
        """KL in nats. None without a position."""
        return self.divergence / self.positions if self.positions else None

    @property
    def agreement(self) -> float | None:
        return self.top1 / self.positions if self.positions else None


def forced(tokens: Tensor, mask: Tensor | None, reference: Tensor, given: Tensor) -> Forced:
    """tokens, mask: int[N,S] (mask 0: no token there); reference, given: logits float[N,S,V].

    ValueError if their shapes do not belong together. Tokens outside of the vocabulary are passed over.
    """
    if reference.shape != given.shape or reference.ndim != 3 or reference.shape[:2] != tokens.shape:
        raise ValueError(f"tokens {list(tokens.shape)} with logits {list(reference.shape)} and {list(given.shape)}")
    return summed(
        [
            _of_text(tokens[row], None if mask is None else mask[row], reference[row], given[row])
            for row in range(len(tokens))  # one at a time: logits of a batch in 64 bits are large
        ]
    )


def summed(parts: Sequence[Forced]) -> Forced:
    return Forced(
        positions=sum(part.positions for part in parts),
        loss=sum(part.loss for part in parts),
        reference_loss=sum(part.reference_loss for part in parts),
        divergence=sum(part.divergence for part in parts),
        top1=sum(part.top1 for part in parts),
        broken=sum(part.broken for part in parts),
    )


def _of_text(tokens: Tensor, mask: Tensor | None, reference: Tensor, given: Tensor) -> Forced:
    following = tokens[1:]
    asked = (following >= 0) & (following < reference.shape[-1])
    if mask is not None:
        asked &= (mask[1:] != 0) & (mask[:-1] != 0)
    p, q = reference[:-1][asked].astype(np.float64), given[:-1][asked].astype(np.float64)
    following = following[asked]
    known = _are_logits(p)
    sound = known & _are_logits(q)
    broken = int(np.count_nonzero(known & ~sound))
    p, q, following = _log_softmax(p[sound]), _log_softmax(q[sound]), following[sound]
    rows = np.arange(len(following))
    return Forced(
        positions=len(following),
        loss=-float(q[rows, following].sum()),
        reference_loss=-float(p[rows, following].sum()),
        divergence=max(0.0, float((np.exp(p) * (p - q)).sum())),
        top1=int(np.count_nonzero(p.argmax(axis=1) == q.argmax(axis=1))) if len(following) else 0,
        broken=broken,
    )


def _are_logits(rows: Tensor) -> Tensor:
    """Which rows are logits of a distribution. Minus infinity is a token that cannot come."""
    return ~np.isnan(rows).any(axis=1) & np.isfinite(rows.max(axis=1, initial=-np.inf))


def _log_softmax(logits: Tensor) -> Tensor:
    if not len(logits):
        return logits
    shifted = logits - logits.max(axis=1, keepdims=True)
    # Below this a probability is 0 in 64 bits; without the bound, logits of 1e308 would make its logarithm infinite.
    shifted = np.maximum(shifted, -1e6)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))

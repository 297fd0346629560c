"""How close two tensors are: arithmetic alone, numpy in, plain numbers out.

Everything is relative to the largest finite magnitude of the reference in the same sample, so that outputs of any
scale are judged alike and a value near zero does not make a large error out of nothing. Called by the checks that
compare answers, and by `drift`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graylift.protocols.datatypes import Tensor

MOST = 1e9
"""The largest relative error that is told apart: a billion times off is as wrong as any, and infinity is no number."""
TIE = 0.01
"""A choice within this share of the sample's largest magnitude below the reference's own choice is a tie with it. In a
row of 384 numbers of one kind, an embedding for instance, one row in ten has its two largest closer than that, and
rounding to 16 bits turns them around without any harm."""
_MOST_DIMENSIONS = 3
"""An output of more dimensions is a map or a state, where the largest element of a row says nothing."""


@dataclass(frozen=True, slots=True)
class Closeness:
    """What one output of some samples is, compared with the reference's.

    samples:    compared
    max_error:  the largest |given - reference| of any element / the largest |reference| of its sample; where that is 0,
                the plain difference
    mean_error: the mean of the same over all elements
    cosine:     the smallest of any sample; 1 where there is no direction to compare
    broken:     elements that are NaN or infinite where the reference is not; they enter nothing else
    rows:       choices compared: rows along the last axis for floats, each element for what is no float; 0: none is
    agreeing:   of them, those that choose as the reference does, or an element that ties with its choice
    """

    samples: int
    max_error: float
    mean_error: float
    cosine: float
    broken: int
    rows: int
    agreeing: int

    @property
    def agreement(self) -> float | None:
        """The share of choices that agree; None if nothing is chosen."""
        return self.agreeing / self.rows if self.rows else None


def closeness(reference: Tensor, given: Tensor, samples: int) -> Closeness:
    """Compare two tensors of one shape. ValueError if their shapes differ.

    samples: how many the batch has; along the first axis, if that is as long, else the tensor is one sample
    """
    if reference.shape != given.shape:
        raise ValueError(f"shape {list(given.shape)} instead of {list(reference.shape)}")
    if reference.dtype.kind != "f" or given.dtype.kind != "f":
        equal = np.asarray(reference == given)
        return Closeness(samples, 0.0, 0.0, 1.0, 0, equal.size, int(np.count_nonzero(equal)))
    batch = samples if reference.ndim and reference.shape[0] == samples else 1
    each = [_of_sample(r, g) for r, g in zip(_split(reference, batch), _split(given, batch), strict=True)]
    chosen = (1 if batch == 1 else 2) <= reference.ndim <= _MOST_DIMENSIONS and reference.shape[-1] > 1
    width = reference.shape[-1] if chosen else 0
    rows, agreeing = _choices(_split(reference, batch), _split(given, batch), width)
    return merged([*each, Closeness(0, 0.0, 0.0, 1.0, 0, rows, agreeing)], samples)


def merged(parts: Sequence[Closeness], samples: int | None = None) -> Closeness:
    """Of the same output over several batches. The mean weighs each sample alike."""
    count = sum(part.samples for part in parts)
    return Closeness(
        samples=count if samples is None else samples,
        max_error=max((part.max_error for part in parts), default=0.0),
        mean_error=sum(part.mean_error * part.samples for part in parts) / count if count else 0.0,
        cosine=min((part.cosine for part in parts), default=1.0),
        broken=sum(part.broken for part in parts),
        rows=sum(part.rows for part in parts),
        agreeing=sum(part.agreeing for part in parts),
    )


def _split(tensor: Tensor, batch: int) -> list[Tensor]:
    return [tensor] if batch == 1 else list(tensor)


def _of_sample(reference: Tensor, given: Tensor) -> Closeness:
    # In 64 bits: the difference of two numbers of fewer has no error of its own worth telling.
    r, g = reference.ravel().astype(np.float64), given.ravel().astype(np.float64)
    known = np.isfinite(r)
    broken = int(np.count_nonzero(known & ~np.isfinite(g)))
    both = known & np.isfinite(g)
    scale = _scale(r[known])
    with np.errstate(over="ignore"):  # what overflows is beyond MOST
        r, g = r[both] / scale, np.clip(g[both] / scale, -MOST, MOST)
    error = np.minimum(np.abs(g - r), MOST)
    if not error.size:
        return Closeness(1, 0.0, 0.0, 1.0, broken, 0, 0)
    return Closeness(1, float(error.max()), float(error.mean()), _cosine(r, g), broken, 0, 0)


def _scale(finite: Tensor) -> float:
    """The largest magnitude, or 1 where there is none to speak of: dividing by it would leave the numbers."""
    largest = float(np.abs(finite).max(initial=0.0))
    return largest if largest >= np.finfo(np.float64).tiny else 1.0


def _cosine(r: Tensor, g: Tensor) -> float:
    sizes = float(np.abs(r).max()), float(np.abs(g).max())
    if 0.0 in sizes:
        return 1.0 if sizes[0] == sizes[1] else 0.0
    r, g = r / sizes[0], g / sizes[1]
    lengths = float(np.linalg.norm(r)) * float(np.linalg.norm(g))
    return min(1.0, max(-1.0, float(r @ g) / lengths))


def _choices(reference: Sequence[Tensor], given: Sequence[Tensor], width: int) -> tuple[int, int]:
    """(rows compared, rows that agree). Rows whose largest element is no finite number in the reference do not count;
    a row with a NaN in `given` does not agree."""
    rows = agreeing = 0
    if width == 0:
        return rows, agreeing
    for r, g in zip(reference, given, strict=True):
        theirs, ours = (tensor.reshape(-1, width).astype(np.float64) for tensor in (r, g))
        top = theirs.max(axis=1)
        counts = np.isfinite(top)
        choice = np.take_along_axis(theirs, ours.argmax(axis=1)[:, None], axis=1)[:, 0]
        slack = TIE * _scale(theirs[np.isfinite(theirs)])
        agrees = counts & (choice >= top - slack) & ~np.isnan(ours).any(axis=1)
        rows += int(np.count_nonzero(counts))
        agreeing += int(np.count_nonzero(agrees))
    return rows, agreeing

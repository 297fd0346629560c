"""Events of a stream, however their bytes are cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from graylift.protocols.sse import DONE, EventReader, event

EVENTS = (b'{"a": 1}', "día".encode(), DONE)
STREAM = b": a comment\n\nevent: x\n" + b"".join(map(event, EVENTS))


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_wherever_their_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    reader = EventReader()
    read = [data for begin, end in pairwise(edges) for data in reader.feed(STREAM[begin:end])]
    assert tuple(read) == EVENTS


def test_lines_may_end_as_in_http_and_an_event_that_is_not_over_is_none() -> None:
    assert EventReader().feed(b"data: 1\r\n\r\ndata:2\n\ndata: 3\n") == [b"1", b"2"]

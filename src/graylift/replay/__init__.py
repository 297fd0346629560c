"""Recorded requests put before the judge: what `graylift judge` and `graylift calibrate` read and replay.

    a file -> table (reading) -> records, what is broken marked -> windows of intervals (course) -> judge (replaying)

`reading` is the only module here that opens a file; the others are arithmetic on arrays. The judge is the
controller's own. It must not know commands, stores or gateways. Called by the commands.
"""

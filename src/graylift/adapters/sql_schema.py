"""The tables of the store. Plain types only, so that SQLite and PostgreSQL hold the same; `sql_store` alone uses them.

What is searched or compared is a column, everything else stands in `document`, a domain value as JSON.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 1
"""Rises with every change of a table that older code could not live with."""

metadata = MetaData()

schema = Table("graylift_schema", metadata, Column("version", Integer, primary_key=True))

lease = Table(
    "lease",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1: there is one lease
    Column("holder", String, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("until_s", Float(53), nullable=False),
)

services = Table(
    "services",
    metadata,
    Column("name", String, primary_key=True),
    Column("revision_no", BigInteger, nullable=False),
    Column("release_id", String),
    Column("judge_state", Text),
    Column("document", Text, nullable=False),
)

releases = Table(
    "releases",
    metadata,
    Column("id", String, primary_key=True),
    Column("service", String, nullable=False),
    Column("created_s", Float(53), nullable=False),
    Column("finished_s", Float(53)),
    Column("document", Text, nullable=False),
    Index("releases_of_service", "service", "created_s"),
)

routing_table = Table(
    "routing_table",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1: only the newest is kept
    Column("document", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    # Integer, since SQLite numbers only INTEGER keys by itself; its integers have 64 bits anyway.
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at_s", Float(53), nullable=False),
    Column("service", String, nullable=False),
    Column("release_id", String),
    Column("kind", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("by", String, nullable=False),
    Index("events_of_service", "service", "id"),
    Index("events_of_release", "release_id", "id"),
)

cursors = Table(
    "cursors",
    metadata,
    Column("gateway", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)

recent_reports = Table(
    "recent_reports",
    metadata,
    Column("gateway", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("end_s", Float(53), nullable=False),
    Column("document", Text, nullable=False),
    Index("recent_reports_by_end", "end_s"),
)
"""Whole reports of the last hour, for live rates."""

release_reports = Table(
    "release_reports",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("release_id", String, nullable=False),
    Column("gateway", String, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("start_s", Float(53), nullable=False),
    Column("document", Text, nullable=False),
    UniqueConstraint("release_id", "gateway", "sequence"),
)
"""Reports of a release's life span with the windows of its service: its evidence, kept."""

commands = Table(
    "commands",
    metadata,
    Column("arrival", Integer, primary_key=True, autoincrement=True),
    Column("id", String, nullable=False, unique=True),
    Column("outcome", Text),
    Column("refused", Boolean),
    Column("document", Text, nullable=False),
    Index("commands_by_outcome", "outcome", "arrival"),
)

sorted_events = Table(
    "sorted_events",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("number", Integer, nullable=False),
)
"""Up to which event it is known who is to be told."""

notices = Table(
    "notices",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("document", Text, nullable=False),
)
"""What is still to be told."""

tokens = Table(
    "tokens",
    metadata,
    Column("name", String, primary_key=True),
    Column("digest", String, nullable=False),
    Column("document", Text, nullable=False),
)
"""An older file gets it with its first token."""

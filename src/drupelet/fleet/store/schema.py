"""The tables. Times are Unix milliseconds by the server's clock unless a name says otherwise; `_json` is JSON.

devices           who is in the fleet, what it last said, its standing order, what is signed for it
device_events     transitions and refusals as each device journalled them
windows           telemetry as it came; pairs are made from those with a block label
releases          manifests the operator registered, verified against the image root
rollouts, members a rollout, and every device selected for it in the order of the draw
commands          what operators asked of rollouts, obeyed in order
pairs, verdicts   the evidence and what the gate said of it
director_files    the signed metadata each device may fetch
audit             every decision and refusal with its reason; only grows
tokens            API tokens, hashed
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_ID = BigInteger().with_variant(Integer, "sqlite")
"""SQLite numbers rows by itself only under the exact type INTEGER."""
_NAME = String(64)
_RELEASE = String(97)
_DIGEST = String(71)

devices = Table(
    "devices",
    metadata,
    Column("id", _NAME, primary_key=True),
    Column("public_key", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("labels_json", LargeBinary, nullable=False),
    Column("hardware_json", LargeBinary, nullable=False),
    Column("board", String(64), nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("address", String(64), nullable=False, default=""),
    Column("enrolled_at", BigInteger, nullable=False),
    Column("decided_at", BigInteger),
    Column("decided_by", String(64), nullable=False, default=""),
    Column("key_conflicts", Integer, nullable=False, default=0),
    Column("key_conflict_at", BigInteger),
    Column("boot", String(64), nullable=False, default=""),
    Column("agent_version", String(64), nullable=False, default=""),
    Column("status_json", LargeBinary),
    Column("seen_at", BigInteger),
    Column("clock_off_ms", BigInteger, nullable=False, default=0),
    Column("events_seq", BigInteger, nullable=False, default=0),
    Column("windows_seq", BigInteger, nullable=False, default=0),
    Column("windows_at", BigInteger),
    Column("order_json", LargeBinary),
    Column("order_serial", BigInteger, nullable=False, default=0),
    Column("order_rollout", BigInteger, nullable=False, default=0),
    Column("signed_serial", BigInteger, nullable=False, default=-1),
    Column("signed_until", BigInteger, nullable=False, default=0),
    Column("director_version", BigInteger, nullable=False, default=0),
    Index(None, "state"),
)

device_events = Table(
    "device_events",
    metadata,
    Column("device", _NAME, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("received_at", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("after", String(16), nullable=False),
    Column("reason", String(32), nullable=False),
    Column("release", _RELEASE, nullable=False),
    Column("order_serial", BigInteger, nullable=False),
    Column("event_json", LargeBinary, nullable=False),
    Index(None, "received_at"),
)

windows = Table(
    "windows",
    metadata,
    Column("device", _NAME, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True),
    Column("last_seq", BigInteger, primary_key=True),
    Column("received_at", BigInteger, nullable=False),
    Column("blocks", Boolean, nullable=False),
    Column("windows_json", LargeBinary, nullable=False),
    Index(None, "received_at"),
)

releases = Table(
    "releases",
    metadata,
    Column("id", _RELEASE, primary_key=True),
    Column("family", _NAME, nullable=False),
    Column("manifest_digest", _DIGEST, nullable=False),
    Column("manifest_length", BigInteger, nullable=False),
    Column("manifest_json", LargeBinary, nullable=False),
    Column("added_at", BigInteger, nullable=False),
    Column("added_by", String(64), nullable=False),
    Column("condemned_at", BigInteger),
    Column("condemned_by", String(64), nullable=False, default=""),
    Column("condemned_reason", Text, nullable=False, default=""),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("release", _RELEASE, ForeignKey("releases.id"), nullable=False),
    Column("selector", Text, nullable=False),
    Column("stages_json", LargeBinary, nullable=False),
    Column("caps_json", LargeBinary, nullable=False),
    Column("policy_json", LargeBinary, nullable=False),
    Column("seed", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("stage", Integer, nullable=False, default=0),
    Column("paused_by", String(16), nullable=False, default=""),
    Column("reason", Text, nullable=False),
    Column("revision", BigInteger, nullable=False, default=0),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("stage_at", BigInteger, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Index(None, "state"),
)

members = Table(
    "members",
    metadata,
    Column("rollout", _ID, ForeignKey("rollouts.id", ondelete="CASCADE"), primary_key=True),
    Column("device", _NAME, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True),
    Column("rank", Integer, nullable=False),
    Column("stratum", String(200), nullable=False),
    Column("stage", Integer),
    Column("exposed_at", BigInteger),
    Column("first_serial", BigInteger, nullable=False, default=0),
    Column("previous", _RELEASE, nullable=False, default=""),
    Column("previous_manifest", _DIGEST, nullable=False, default=""),
    Column("failure", Text, nullable=False, default=""),
    Index(None, "device"),
)

commands = Table(
    "commands",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("rollout", _ID, ForeignKey("rollouts.id", ondelete="CASCADE"), nullable=False),
    Column("event", String(16), nullable=False),
    Column("by", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("done_at", BigInteger),
    Index(None, "rollout", "done_at"),
)

pairs = Table(
    "pairs",
    metadata,
    Column("rollout", _ID, ForeignKey("rollouts.id", ondelete="CASCADE"), primary_key=True),
    Column("device", _NAME, primary_key=True),
    Column("idx", Integer, primary_key=True),
    Column("serial", BigInteger, nullable=False),
    Column("number", Integer, nullable=False),
    Column("first", String(8), nullable=False),
    Column("hardware", String(64), nullable=False),
    Column("complete_at_s", Float(53), nullable=False),
    Column("pair_json", LargeBinary, nullable=False),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("rollout", _ID, ForeignKey("rollouts.id", ondelete="CASCADE"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("stage", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("verdict_json", LargeBinary, nullable=False),
    Index(None, "rollout", "id"),
)

director_files = Table(
    "director_files",
    metadata,
    Column("device", _NAME, ForeignKey("devices.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(80), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("at", BigInteger, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("subject", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("detail_json", LargeBinary, nullable=False),
    Index(None, "subject"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", _ID, primary_key=True, autoincrement=True),
    Column("name", _NAME, nullable=False, unique=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("scopes", String(128), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(64), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
)

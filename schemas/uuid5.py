"""UUIDv5 (RFC 9562) in DuckDB, for ids that are a pure function of what they name."""

from __future__ import annotations

from uuid import UUID, uuid5

import duckdb

NIL = UUID(int=0)
SESSION_NAMESPACE = uuid5(NIL, "journeys.session")
JOURNEY_NAMESPACE = uuid5(NIL, "journeys.journey")


def create_macro(con: duckdb.DuckDBPyConnection) -> None:
    """Make the temporary macro `uuid5_of(namespace, name)`: both texts, answers UUID."""
    con.execute("""
        create or replace temp macro uuid5_digest(namespace, name) as
            sha1(unhex(replace(namespace, '-', '')) || encode(name))""")
    con.execute("""
        create or replace temp macro uuid5_from(digest) as
            (digest[1:12] || '5' || digest[14:16]
             || translate(digest[17], '0123456789abcdef', '89ab89ab89ab89ab') || digest[18:32])::uuid""")
    con.execute("""
        create or replace temp macro uuid5_of(namespace, name) as uuid5_from(uuid5_digest(namespace, name))""")

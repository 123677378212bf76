"""The tables and statements that the documentation gives for each database."""

from mailproxy.mapping.sql import Statements

POSTGRESQL_TABLE = """\
CREATE TABLE routes (
    identifier  text PRIMARY KEY,
    destination text NOT NULL
)"""

POSTGRESQL = Statements(
    query="SELECT destination FROM routes WHERE identifier = $1",
    upsert="INSERT INTO routes (identifier, destination) VALUES ($1, $2) "
    "ON CONFLICT (identifier) DO UPDATE SET destination = excluded.destination",
    delete="DELETE FROM routes WHERE identifier = $1",
)

MYSQL_TABLE = """\
CREATE TABLE routes (
    identifier  VARCHAR(512) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY,
    destination VARCHAR(512) CHARACTER SET utf8mb4 NOT NULL
)"""

MYSQL = Statements(
    query="SELECT destination FROM routes WHERE identifier = ?",
    upsert="INSERT INTO routes (identifier, destination) VALUES (?, ?) "
    "ON DUPLICATE KEY UPDATE destination = VALUES(destination)",
    delete="DELETE FROM routes WHERE identifier = ?",
)

SQLITE_TABLE = """\
CREATE TABLE routes (
    identifier  TEXT PRIMARY KEY,
    destination TEXT NOT NULL
)"""

SQLITE = Statements(
    query="SELECT destination FROM routes WHERE identifier = ?",
    upsert="INSERT INTO routes (identifier, destination) VALUES (?, ?) "
    "ON CONFLICT (identifier) DO UPDATE SET destination = excluded.destination",
    delete="DELETE FROM routes WHERE identifier = ?",
)

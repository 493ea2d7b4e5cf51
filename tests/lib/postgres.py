# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL on a node, and its own checks of its own data."""

from labs import LabFailure

DATA = "/var/lib/postgresql/15/main"
BIN = "/usr/lib/postgresql/15/bin"


def psql(lab, node, query, database="postgres", timeout_s=60):
    return lab.exec(node, "runuser", "-u", "postgres", "--", "psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1",
                    "-d", database, "-c", query, timeout_s=timeout_s).stdout.strip()


def create_ledger_database(lab, node):
    """A superuser, so that the clients can ask the server on which machine it runs."""
    if not psql(lab, node, "SELECT 1 FROM pg_roles WHERE rolname = 'ledger'"):
        psql(lab, node, "CREATE ROLE ledger SUPERUSER LOGIN")
    if not psql(lab, node, "SELECT 1 FROM pg_database WHERE datname = 'ledger'"):
        psql(lab, node, "CREATE DATABASE ledger OWNER ledger")
    psql(lab, node, "CREATE EXTENSION IF NOT EXISTS amcheck", database="ledger")
    if psql(lab, node, "SHOW data_checksums") != "on":
        raise LabFailure("the database has no data checksums: it could not notice damage")


def check(lab, node, timeout_s=180):
    """amcheck over all relations of all databases, and every page read with its checksum. Raises on any complaint."""
    lab.exec(node, "runuser", "-u", "postgres", "--", f"{BIN}/pg_amcheck", "--all", "--install-missing",
             "--heapallindexed", timeout_s=timeout_s)
    lab.sh(node, f"runuser -u postgres -- {BIN}/pg_dumpall > /dev/null", timeout_s=timeout_s)
    failures = psql(lab, node, "SELECT coalesce(sum(checksum_failures), 0) FROM pg_stat_database")
    if failures != "0":
        raise LabFailure(f"{node}: {failures} pages with wrong checksums")


def checkpoint(lab, node):
    psql(lab, node, "CHECKPOINT", timeout_s=120)

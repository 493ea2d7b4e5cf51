#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clients that keep a ledger of what a database acknowledged, and the check of that ledger against the database.

Runs on the client machine with nothing but Python and psycopg2; the tests copy this one file there.

    ledger_client.py setup  --host H                              tables in database 'ledger', which exists
    ledger_client.py run    --host H --run ID --ledger FILE [--clients 8] [--seconds S]
    ledger_client.py verify --host H --run ID --ledger FILE       prints what was found and lost, as JSON

`run` ends at the end of its standard input, or after S seconds. It prints one JSON object a line: progress every
250 ms, and the first commit after each change of server. Each transaction inserts one row that nobody else writes, and
moves a balance by the same amount, so that a torn transaction shows.

The ledger is append-only, one line a transaction, times of CLOCK_MONOTONIC in nanoseconds:

    OUTCOME CLIENT N BEGIN_NS END_NS SERVER

OUTCOME: ok = the server acknowledged the commit; unknown = the connection was lost after COMMIT was sent, either
result is right; failed = lost before COMMIT was sent, the row must not exist.
"""

import argparse
import collections
import json
import os
import select
import socket
import sys
import threading
import time

ACCOUNTS = 64
PROBE_S = 0.3          # how long one attempt to reach the address may take: a dead server doesn't answer
CONNECT_S = 2.0        # start of session, once the address answered
ANSWER_S = 20.0        # a server that lives but doesn't answer is given up after this
RETRY_S = 0.02
REPORT_S = 0.25

Entry = collections.namedtuple("Entry", "outcome client n begin_ns end_ns server")


def parse_ledger(text):
    """All complete lines of a ledger. A torn last line can only be there while the clients run, and is left out."""
    entries = []
    for line in text.split("\n")[:-1]:
        outcome, client, n, begin_ns, end_ns, server = line.split(" ")
        entries.append(Entry(outcome, int(client), int(n), int(begin_ns), int(end_ns), server))
    return entries


def compare(entries, rows, account_sums, balances):
    """The verdict. rows: set of (client, n) in the database; the other two: {account: amount}."""
    by_outcome = {outcome: {(e.client, e.n) for e in entries if e.outcome == outcome}
                  for outcome in ("ok", "unknown", "failed")}
    lost = sorted(by_outcome["ok"] - rows)
    ghosts = sorted(rows - by_outcome["ok"] - by_outcome["unknown"])
    torn = sorted(account for account in set(account_sums) | set(balances)
                  if account_sums.get(account, 0) != balances.get(account, 0))
    return {"acknowledged": len(by_outcome["ok"]), "found": len(by_outcome["ok"]) - len(lost), "lost": len(lost),
            "unknown": len(by_outcome["unknown"]), "unknown_found": len(by_outcome["unknown"] & rows),
            "ghosts": len(ghosts), "torn_accounts": len(torn),
            "lost_keys": lost, "ghost_keys": ghosts[:20], "torn": torn[:20]}


class Database:
    """One connection whose every wait has a deadline of ours: libpq's own shortest time to connect is 2 s."""

    def __init__(self, host, port, user, name):
        import psycopg2
        import psycopg2.extensions
        self.psycopg2 = psycopg2
        self.target = {"host": host, "port": port, "user": user, "dbname": name, "sslmode": "disable",
                       "application_name": "ledger", "keepalives": 1, "keepalives_idle": 1, "keepalives_interval": 1,
                       "keepalives_count": 1, "tcp_user_timeout": 1000}
        self.connection = None
        self.server = "-"

    def connect(self):
        self.close()
        # The address may belong to nobody just now: a short attempt tells, and the next one goes out at once.
        socket.create_connection((self.target["host"], self.target["port"]), PROBE_S).close()
        waits.deadline = time.monotonic() + CONNECT_S
        self.connection = self.psycopg2.connect(**self.target)
        waits.deadline = time.monotonic() + CONNECT_S
        cursor = self.connection.cursor()
        cursor.execute("SELECT btrim(pg_read_file('/proc/sys/kernel/hostname'), E' \\n'),"
                       " extract(epoch FROM pg_postmaster_start_time())::bigint")
        self.server = "%s@%d" % cursor.fetchone()
        self.connection.rollback()

    def query(self, text, *values):
        waits.deadline = time.monotonic() + ANSWER_S
        cursor = self.connection.cursor()
        cursor.execute(text, values or None)
        return cursor.fetchall() if cursor.description else []

    def commit(self):
        waits.deadline = time.monotonic() + ANSWER_S
        self.connection.commit()

    def close(self):
        if self.connection is not None:
            try:
                self.connection.close()
            except self.psycopg2.Error:
                pass
        self.connection = None


waits = threading.local()      # .deadline of whatever this thread waits for


def wait_with_deadline(connection):
    """psycopg2 calls this instead of blocking in libpq."""
    import psycopg2
    import psycopg2.extensions as ext
    while (state := connection.poll()) != ext.POLL_OK:
        left = waits.deadline - time.monotonic()
        if left <= 0:
            raise psycopg2.OperationalError("no answer in time")
        reading = [connection] if state == ext.POLL_READ else []
        writing = [connection] if state == ext.POLL_WRITE else []
        select.select(reading, writing, [], left)


class Board:
    """What all clients did so far; the reporter reads it."""

    def __init__(self, ledger):
        self.fd = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self.lock = threading.Lock()
        self.commits = self.unknown = self.failed = 0
        self.last_commit_s = time.monotonic()
        self.server = "-"
        self.last_error = ""

    def record(self, outcome, client, n, begin_ns, end_ns, server):
        os.write(self.fd, f"{outcome} {client} {n} {begin_ns} {end_ns} {server}\n".encode())
        with self.lock:
            self.commits += outcome == "ok"
            self.unknown += outcome == "unknown"
            self.failed += outcome == "failed"
            if outcome != "ok":
                return
            outage = end_ns / 1e9 - self.last_commit_s
            moved, self.server = self.server not in ("-", server), server
            self.last_commit_s = end_ns / 1e9
        if moved:
            say(event="server", server=server, outage_s=round(outage, 3), t=end_ns / 1e9)


def say(**what):
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def client_loop(number, options, board, stop):
    """One client: a transaction after the other, until told to stop. Never repeats a number."""
    database = Database(options.host, options.port, options.user, options.database)
    errors = (database.psycopg2.Error, OSError)
    n = 0
    while not stop.is_set():
        n += 1
        account, amount = (number * 31 + n * 7) % ACCOUNTS, n % 97 - 48
        outcome, begin_ns = "failed", time.monotonic_ns()
        try:
            if database.connection is None:
                database.connect()
                begin_ns = time.monotonic_ns()
            database.query("INSERT INTO entries (run, client, n, account, amount) VALUES (%s, %s, %s, %s, %s);"
                           "UPDATE accounts SET balance = balance + %s WHERE id = %s",
                           options.run, number, n, account, amount, amount, account)
            outcome = "unknown"           # from here on even an error answer may mean that it was written
            database.commit()
            outcome = "ok"
        except errors as error:
            board.last_error = str(error).strip().split("\n")[0]
            database.close()
        board.record(outcome, number, n, begin_ns, time.monotonic_ns(), database.server)
        if outcome != "ok":
            stop.wait(RETRY_S)
    database.close()


def stop_at_end_of_input(stop):
    try:
        while sys.stdin.buffer.raw.read(4096):
            pass
    except OSError:
        pass
    stop.set()


def run(options):
    import psycopg2.extensions
    psycopg2.extensions.set_wait_callback(wait_with_deadline)
    board, stop = Board(options.ledger), threading.Event()
    say(event="hello", t=time.monotonic(), pid=os.getpid())
    threads = [threading.Thread(target=client_loop, args=(i, options, board, stop)) for i in range(options.clients)]
    for thread in threads:
        thread.start()
    if options.seconds is None:
        threading.Thread(target=stop_at_end_of_input, args=(stop,), daemon=True).start()
    started = before_s = time.monotonic()
    before = 0
    while not stop.wait(REPORT_S):
        now, commits = time.monotonic(), board.commits
        say(event="progress", t=now, commits=commits, rate=round((commits - before) / (now - before_s), 1),
            server=board.server, unknown=board.unknown, quiet_s=round(max(0.0, now - board.last_commit_s), 3),
            error=board.last_error)
        before, before_s = commits, now
        if options.seconds is not None and now - started >= options.seconds:
            stop.set()
    for thread in threads:
        thread.join()
    os.fsync(board.fd)
    say(event="end", t=time.monotonic(), commits=board.commits, unknown=board.unknown, failed=board.failed)
    return 0


def connect_patiently(options):
    """For setup and verify: the server may be on its way up."""
    import psycopg2
    import psycopg2.extensions
    psycopg2.extensions.set_wait_callback(wait_with_deadline)
    database = Database(options.host, options.port, options.user, options.database)
    give_up = time.monotonic() + options.patience
    while True:
        try:
            database.connect()
            return database
        except (psycopg2.Error, OSError) as error:
            if time.monotonic() > give_up:
                sys.exit(f"ledger_client: no database at {options.host}: {str(error).strip()}")
            threading.Event().wait(RETRY_S)


def setup(options):
    database = connect_patiently(options)
    database.query("CREATE TABLE IF NOT EXISTS entries (run text, client int, n int, account int NOT NULL,"
                   " amount int NOT NULL, at timestamptz DEFAULT now(), PRIMARY KEY (run, client, n));"
                   "CREATE TABLE IF NOT EXISTS accounts (id int PRIMARY KEY, balance bigint NOT NULL);"
                   "INSERT INTO accounts SELECT i, 0 FROM generate_series(0, %s) i ON CONFLICT DO NOTHING",
                   ACCOUNTS - 1)
    database.commit()
    return 0


def verify(options):
    database = connect_patiently(options)
    with open(options.ledger) as file:
        entries = parse_ledger(file.read())
    # One snapshot for all three, or clients of another run would look like torn transactions.
    database.connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    rows = set(database.query("SELECT client, n FROM entries WHERE run = %s", options.run))
    sums = dict(database.query("SELECT account, sum(amount)::bigint FROM entries GROUP BY account"))
    balances = dict(database.query("SELECT id, balance FROM accounts"))
    print(json.dumps(dict(compare(entries, rows, sums, balances), server=database.server)))
    return 0


def arguments(description, *commands):
    """What every client of the database is told."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("what", choices=commands)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--user", default="ledger")
    parser.add_argument("--database", default="ledger")
    parser.add_argument("--run", default="1")
    parser.add_argument("--patience", type=float, default=30.0)
    return parser


def main():
    parser = arguments(__doc__, "setup", "run", "verify")
    parser.add_argument("--ledger")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float)
    options = parser.parse_args()
    if options.what != "setup" and not options.ledger:
        parser.error("--ledger is needed")
    return {"setup": setup, "run": run, "verify": verify}[options.what](options)


if __name__ == "__main__":
    sys.exit(main())

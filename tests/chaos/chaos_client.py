#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clients of a bank and of lists, in PostgreSQL; runs on the client machine beside ledger_client.py.

    chaos_client.py setup --host H
    chaos_client.py run   --host H --run ID --history FILE       until the end of standard input
    chaos_client.py final --host H --run ID                      what is there now, as JSON

A history has a line of JSON for each transaction, as consistency.Transaction: [client, n, kind, outcome, begin, end, server, heard, what].
Clients with an odd number are patient: they cling to a connection long after others have given it up, so that a server which
wakes up too late finds somebody to answer.
"""

import json
import random
import sys
import threading
import time
import traceback

import ledger_client
from ledger_client import Database, arguments, connect_patiently, say, stop_at_end_of_input

ACCOUNTS, BALANCE = 12, 1000
LISTS_AT_ONCE, VALUES_A_LIST = 6, 40
PAUSE_S = 0.012         # there is one machine for all; faults, not load, are what is tried here
BANKERS, APPENDERS = 3, 5


class Board:
    def __init__(self, path):
        self.file, self.lock = open(path, "w", buffering=1 << 16), threading.Lock()
        self.done = self.appended = 0
        self.server, self.last_s, self.error, self.broken = "-", time.monotonic(), "", ""

    def record(self, *transaction):
        with self.lock:
            self.file.write(json.dumps(transaction, separators=(",", ":")) + "\n")
            _, _, _, outcome, _, end_ns, server, _, _ = transaction
            if outcome == "ok":
                self.done += 1
                self.server, self.last_s = server, end_ns / 1e9

    def next_key(self):
        """Lists are given up when they are long: what is read stays small."""
        with self.lock:
            self.appended += 1
            return self.appended // (LISTS_AT_ONCE * VALUES_A_LIST) * LISTS_AT_ONCE + random.randrange(LISTS_AT_ONCE)


class Client:
    def __init__(self, number, options, board):
        self.number, self.run, self.board = number, options.run, board
        self.database = Database(options.host, options.port, options.user, options.database)
        if number % 2:
            self.database.target |= {"tcp_user_timeout": 12_000, "keepalives_idle": 6}
        self.errors = (self.database.psycopg2.Error, OSError)
        self.begin_ns, self.heard_ns, self.what = 0, 0, None

    def query(self, text, *values):
        begin_ns = time.monotonic_ns()
        rows = self.database.query(text, *values)
        self.heard_ns = begin_ns
        return rows

    def transfer(self, n):
        source, target = random.sample(range(ACCOUNTS), 2)
        amount = random.randint(1, 5)
        self.what = (source, target, amount)
        rows = dict(self.query("SELECT id, balance FROM bank WHERE id IN (%s, %s) ORDER BY id FOR UPDATE", source, target))
        if rows[source] < amount:
            self.what = (source, target, 0)
            amount = 0
        self.query("UPDATE bank SET balance = balance - %s WHERE id = %s;"
                            "UPDATE bank SET balance = balance + %s WHERE id = %s;"
                            "INSERT INTO transfers VALUES (%s, %s, %s, %s, %s, %s)",
                            amount, source, amount, target, self.run, self.number, n, source, target, amount)
        return "transfer"

    def balances(self, n):
        half = ACCOUNTS // 2        # in two statements: one alone would be consistent by itself
        first = self.query("SELECT balance FROM bank WHERE id < %s ORDER BY id", half)
        second = self.query("SELECT balance FROM bank WHERE id >= %s ORDER BY id", half)
        self.what = [row[0] for row in first + second]
        return "balances"

    def lists(self, n):
        self.what = []
        for i in range(random.choice((1, 2, 2, 3, 4))):
            key = self.board.next_key()
            if random.random() < 0.5:
                rows = self.query("SELECT elements FROM lists WHERE run = %s AND key = %s", self.run, key)
                self.what.append(("r", key, rows[0][0] if rows else []))
                continue
            value = (n * 8 + i) * 16 + self.number
            self.what.append(("a", key, value))
            self.query("INSERT INTO lists VALUES (%s, %s, ARRAY[%s::bigint]) ON CONFLICT (run, key) DO"
                                " UPDATE SET elements = lists.elements || EXCLUDED.elements", self.run, key, value)
        return "lists"

    def once(self, n):
        banks = self.number < BANKERS
        work = self.lists if not banks else self.balances if n % 3 == 0 else self.transfer
        kind, outcome, self.heard_ns, self.what = work.__name__, "fail", 0, []
        self.begin_ns = time.monotonic_ns()
        try:
            if self.database.connection is None:
                self.database.connect()
                self.database.connection.set_session(isolation_level="REPEATABLE READ" if banks else "SERIALIZABLE")
                self.begin_ns = time.monotonic_ns()
            work(n)
            outcome = "unknown"
            begin_ns = time.monotonic_ns()
            self.database.commit()
            self.heard_ns = begin_ns
            outcome = "ok"
        except self.errors as error:
            code = getattr(error, "pgcode", None) or ""
            if code.startswith("40") and not code.startswith("40003"):     # two got in each other's way: certainly not done
                outcome = "fail"
                if self.database.connection is not None:
                    self.database.connection.rollback()
            else:
                self.board.error = str(error).strip().split("\n")[0]
                self.database.close()
        except KeyError:                # a row is missing: the judge will find it gone
            self.database.close()
        self.board.record(self.number, n, kind, outcome, self.begin_ns, time.monotonic_ns(), self.database.server,
                          self.heard_ns, self.what)

    def loop(self, stop):
        n = 0
        while not stop.is_set():
            n += 1
            try:
                self.once(n)
            except self.errors as error:        # a rollback that fails
                self.board.error = str(error).strip().split("\n")[0]
                self.database.close()
            except BaseException:               # a bug here: nobody may take silence for agreement
                self.board.broken = traceback.format_exc()
                stop.set()
                raise
            stop.wait(PAUSE_S * random.uniform(0.5, 1.5))
        self.database.close()


def run(options):
    import psycopg2.extensions
    psycopg2.extensions.set_wait_callback(ledger_client.wait_with_deadline)
    board, stop = Board(options.history), threading.Event()
    clients = [Client(number, options, board) for number in range(BANKERS + APPENDERS)]
    threads = [threading.Thread(target=client.loop, args=(stop,)) for client in clients]
    for thread in threads:
        thread.start()
    threading.Thread(target=stop_at_end_of_input, args=(stop,), daemon=True).start()
    while not stop.wait(ledger_client.REPORT_S):
        say(event="progress", t=time.monotonic(), commits=board.done, server=board.server,
            quiet_s=round(max(0.0, time.monotonic() - board.last_s), 3), error=board.error)
    for thread in threads:
        thread.join()
    board.file.close()
    sys.exit(board.broken or None)


def setup(options):
    database = connect_patiently(options)
    database.query("CREATE TABLE IF NOT EXISTS bank (id int PRIMARY KEY, balance bigint NOT NULL);"
                   "CREATE TABLE IF NOT EXISTS transfers (run text, client int, n int, source int, target int, amount int,"
                   " PRIMARY KEY (run, client, n));"
                   "CREATE TABLE IF NOT EXISTS lists (run text, key int, elements bigint[] NOT NULL, PRIMARY KEY (run, key));"
                   "TRUNCATE bank, transfers, lists;"
                   "INSERT INTO bank SELECT i, %s FROM generate_series(0, %s) i", BALANCE, ACCOUNTS - 1)
    database.commit()


def final(options):
    database = connect_patiently(options)
    database.connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
    print(json.dumps({
        "initial": {i: BALANCE for i in range(ACCOUNTS)},
        "balances": database.query("SELECT id, balance FROM bank"),
        "transfers": database.query("SELECT client, n, source, target, amount FROM transfers WHERE run = %s", options.run),
        "lists": database.query("SELECT key, elements FROM lists WHERE run = %s", options.run)}))


def main():
    parser = arguments(__doc__, "setup", "run", "final")
    parser.add_argument("--history")
    options = parser.parse_args()
    {"setup": setup, "run": run, "final": final}[options.what](options)


if __name__ == "__main__":
    sys.exit(main())

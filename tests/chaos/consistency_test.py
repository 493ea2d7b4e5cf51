# SPDX-License-Identifier: Apache-2.0
"""The judge must be right before it judges: each kind of violation is found, and a right history is not disputed."""

import itertools

import consistency
import schedule
from consistency import Line, Transaction


def transaction(n, kind, what, begin, end, outcome="ok", client=0, server="n1@1"):
    return Transaction(client, n, kind, outcome, begin, end, server, begin, what)


INITIAL = {0: 100, 1: 100}


def bank(history, balances, transfers):
    return " ".join(consistency.bank(history, INITIAL, balances, transfers))


def test_bank():
    moved = transaction(1, "transfer", (0, 1, 5), 0, 1)
    assert not bank([moved], {0: 95, 1: 105}, {(0, 1): (0, 1, 5)})
    assert "lost" in bank([moved], {0: 100, 1: 100}, {})
    unknown = moved._replace(outcome="unknown")
    assert not bank([unknown], {0: 100, 1: 100}, {}) and not bank([unknown], {0: 95, 1: 105}, {(0, 1): (0, 1, 5)})
    assert "failed or was never made" in bank([moved._replace(outcome="fail")], {0: 95, 1: 105}, {(0, 1): (0, 1, 5)})
    assert "otherwise" in bank([moved], {0: 94, 1: 106}, {(0, 1): (0, 1, 6)})
    assert "total at the end" in bank([moved], {0: 95, 1: 100}, {(0, 1): (0, 1, 5)})
    assert "sum of its transfers" in bank([moved], {0: 96, 1: 104}, {(0, 1): (0, 1, 5)})
    assert "another total" in bank([transaction(1, "balances", [100, 99], 0, 1)], INITIAL, {})
    assert "negative" in bank([transaction(1, "balances", [201, -1], 0, 1)], INITIAL, {})


def lists(history, final):
    return " ".join(consistency.appends(history, final))


def test_appends():
    one = transaction(1, "lists", [["a", 7, 11]], 0, 10)
    two = transaction(2, "lists", [["r", 7, [11]], ["a", 7, 12], ["r", 7, [11, 12]]], 20, 30)
    assert not lists([one, two], {7: [11, 12]})
    assert "lost" in lists([one, two], {7: [11]})
    assert "twice" in lists([one], {7: [11, 11]})
    assert "never appended" in lists([one], {7: [11, 12]})
    assert "never appended" in lists([one, two._replace(outcome="fail")], {7: [11, 12]})
    assert not lists([one, two._replace(outcome="unknown")], {7: [11, 12]})
    assert "no beginning" in lists([one, transaction(3, "lists", [["r", 7, [12]]], 40, 50), two], {7: [11, 12]})


def test_a_stale_read_is_found():
    one = transaction(1, "lists", [["a", 7, 11]], 0, 10)
    assert not lists([one, transaction(2, "lists", [["r", 7, []]], 9, 20, client=1)], {7: [11]})
    assert "did not see" in lists([one, transaction(2, "lists", [["r", 7, []]], 11, 20, client=1)], {7: [11]})
    late = transaction(2, "lists", [["a", 7, 12]], 11, 20, client=1)
    assert "did not see" in lists([one, late], {7: [12, 11]})


def test_write_skew_is_found():
    """Each reads what the other writes, and sees nothing of it: a circle that no order explains."""
    one = transaction(1, "lists", [["r", 1, []], ["a", 2, 21]], 0, 10)
    other = transaction(1, "lists", [["r", 2, []], ["a", 1, 11]], 0, 10, client=1)
    assert "circle" in lists([one, other], {1: [11], 2: [21]})
    sees = other._replace(what=[["r", 2, [21]], ["a", 1, 11]])
    assert not lists([one, sees], {1: [11], 2: [21]})


def test_long_circles():
    chain = {i: {i + 1} for i in range(5000)}
    assert not consistency.circles(chain, 5001)
    chain[5000] = {0}
    assert len(consistency.circles(chain, 5001)) == 1


def test_two_answering():
    old, new = (transaction(1, "balances", [], 0, 10, server="n1@1"), transaction(1, "balances", [], 20, 30, client=1,
                                                                                     server="n2@2"))
    under_way = transaction(2, "balances", [], 25, 40, server="n1@1")       # asked before the new one answered
    assert not consistency.answers([old, new, under_way])
    late = under_way._replace(heard_ns=31)
    assert "after a later one" in consistency.answers([old, new, late])[0]
    for outcome in ("fail", "unknown"):         # it could not commit, but what it told was read
        assert "after a later one" in consistency.answers([old, new, late._replace(outcome=outcome)])[0]


def test_lines():
    acked = [Line(1, "n1", 0, 1), Line(2, "n1", 2, 3), Line(3, "n2", 10, 11)]
    final = [(1, "n1", 0), (2, "n1", 2), (3, "n2", 10)]
    assert not consistency.lines(acked, final)
    assert "lost" in consistency.lines(acked, final[:2])[0]
    assert "broken" in consistency.lines(acked, [final[0], final[2]])[0]
    fork = acked + [Line(3, "n1", 12, 13)]
    assert any("two nodes wrote" in each for each in consistency.lines(fork, final))


def test_senders():
    changes = [(1.0, "a"), (5.0, "b")]
    assert not consistency.senders(changes, ["a", "a", "c", "b"])
    again = changes + [(5.1, "a"), (5.2, "b")]
    assert "without an epoch" in consistency.senders(again, ["a", "a", "a", "b"])[0]
    assert not consistency.senders(again, ["a", "b", None, "b"])
    assert "without an epoch" in consistency.senders([(1.0, "a"), (2.0, "x")], ["a", "b"])[0]
    assert "nothing was watched" in consistency.senders([], ["a"])[0]


def test_unknown_transactions_are_part_of_the_order():
    both = transaction(1, "lists", [["a", 1, 11], ["a", 2, 21]], 0, 10, outcome="unknown")
    assert not lists([both], {}) and not lists([both], {1: [11], 2: [21]})
    assert "half of a transaction" in lists([both], {1: [11]})
    # A circle that nobody sees who leaves the one in the middle out.
    one = transaction(2, "lists", [["a", 1, 12], ["r", 3, []]], 0, 100, client=1)
    middle = transaction(3, "lists", [["a", 1, 13], ["a", 2, 22]], 0, 100, outcome="unknown", client=2)
    last = transaction(4, "lists", [["a", 2, 23], ["a", 3, 31]], 0, 100, client=3)
    assert not lists([one, middle, last], {1: [12, 13], 2: [22, 23], 3: [31]})
    first = last._replace(what=[["a", 2, 23], ["a", 3, 31]])
    back = one._replace(what=[["a", 1, 12], ["r", 3, [31]]])
    assert "circle" in lists([back, middle, first], {1: [12, 13], 2: [22, 23], 3: [31]})


def test_damaged_lines_are_a_finding():
    lines, found = consistency.read_lines("1 n1 5\n\0\0\0\n3 n1\n4 n2 9\n")
    assert lines == [(1, "n1", 5), (4, "n2", 9)] and len(found) == 2


def test_nothing_happened_is_a_finding():
    found = " ".join(consistency.liveness([], [], {}, 3, 2))
    for what in ("transfer", "balances", "lists", "reads", "clients [0, 1]", "lines", "no fault"):
        assert what in found, what
    some = [transaction(n, kind, what, 0, 1, client=n % 2) for n in range(60)
            for kind, what in (("transfer", (0, 1, 1)), ("balances", [1]), ("lists", [["r", 1, [2]]]))]
    assert not consistency.liveness(some, [Line(n, "n1", 0, 1) for n in range(60)], {"kill": 1}, 3, 2)


def test_a_seed_is_a_schedule():
    def begin(seed, nodes=2, witness=True):
        return list(itertools.islice(schedule.rounds(seed, nodes, witness), 200))
    assert begin(1) == begin(1) != begin(2)
    seen = {fault.kind for each in begin(3) for fault in each.faults}
    assert seen == set(schedule.WEIGHTS)
    for each in begin(4, nodes=3, witness=False):
        assert 1 <= len(each.faults) <= 3
        assert all(fault.who != "w1" and "w1" not in fault.detail.get("from", ()) for fault in each.faults), each

# SPDX-License-Identifier: Apache-2.0
"""The judge must be right before it judges: every kind of disagreement is found, and agreement is not disputed."""

import ledger
import pytest
from labs import LabFailure
from ledger_client import Entry, compare, parse_ledger

LEDGER = """\
ok 0 1 100 200 n1@1
ok 1 1 120 250 n1@1
unknown 0 2 210 900 n1@1
failed 1 2 260 900 -
ok 0 3 4000 4100 n2@2
"""


def entries():
    return parse_ledger(LEDGER)


def test_agreement():
    for unknown in (set(), {(0, 2)}):
        verdict = compare(entries(), {(0, 1), (1, 1), (0, 3)} | unknown, {1: 5}, {1: 5, 2: 0})
        assert (verdict["acknowledged"], verdict["found"], verdict["lost"]) == (3, 3, 0)
        assert (verdict["unknown"], verdict["unknown_found"]) == (1, len(unknown))
        assert verdict["ghosts"] == verdict["torn_accounts"] == 0


def test_lost_commit():
    verdict = compare(entries(), {(0, 1), (0, 3)}, {}, {})
    assert (verdict["acknowledged"], verdict["found"], verdict["lost"]) == (3, 2, 1)
    assert verdict["lost_keys"] == [(1, 1)]


def test_row_that_was_never_committed():
    assert compare(entries(), {(0, 1), (1, 1), (0, 3), (1, 2)}, {}, {})["ghost_keys"] == [(1, 2)]


def test_half_a_transaction():
    assert compare([], set(), {1: 5}, {1: 4})["torn"] == [1]


def test_torn_last_line_is_left_out():
    assert parse_ledger(LEDGER + "ok 0 4 5") == entries()


def test_switchover_gap():
    assert ledger.switchover_gap_s(entries(), "n1", "n2") == pytest.approx((4100 - 250) / 1e9)
    with pytest.raises(LabFailure):
        ledger.switchover_gap_s(entries(), "n2", "n1")


def test_outage_ends_with_the_first_commit_on_another_server():
    late = entries() + [Entry("ok", 2, 1, 650, 3000, "n1@1")]      # the old one's last words, after the cut
    assert ledger.outage_after_s(late, 600 / 1e9) == pytest.approx((4100 - 600) / 1e9)
    with pytest.raises(LabFailure):
        ledger.outage_after_s(entries()[:4], 600 / 1e9)


def test_longest_gap():
    assert ledger.longest_gap_s(entries()) == pytest.approx((4100 - 250) / 1e9)

/* SPDX-License-Identifier: Apache-2.0
 *
 * Lease, votes and in-sync set at small scope: every order of events, not those that seeds draw. Two data nodes (0, 1) and a witness (2);
 * with -DTRIO three data nodes. Messages are events that come, or don't, at any time; what is said twice or late is what voters refuse.
 *
 * Time is left out but for what rules on clocks promise: a voter's promise outlives the lease that was given for it (drift margin), and an
 * answer that comes when the promise has ended gives no lease (it counts from before it was asked for).
 *
 * Checked: one node at most holds a lease; whoever wins, and whoever stands in a recorded in-sync set, lacks no acknowledged write.
 * Each FLAW_... must be found (run.sh).
 */
#ifndef EPOCHS
#define EPOCHS 2 /* won after the first one */
#endif
#ifndef REVISIONS
#define REVISIONS 5 /* values in an epoch */
#endif
#define N 3
#ifdef TRIO
#define D 3
#else
#define D 2
#endif
#define BIT(n) (1 << (n))
#define HAS(set, n) (((set) >> (n)) & 1)
#define MAJORITY(set) ((HAS(set, 0) + HAS(set, 1) + HAS(set, 2)) >= 2)
#define NEWER(e1, r1, e2, r2) ((e1) > (e2) || ((e1) == (e2) && (r1) > (r2)))

/* voters */
byte promised[N], promised_to[N];
bit held[N]; /* a lease promised to promised_to[] has not run out */
byte value_epoch[N], value_revision[N], value_set[N];
/* candidates and actives */
byte campaign[N], votes[N], best_epoch[N], best_revision[N], best_set[N];
byte office[N]; /* its epoch; 0: none */
bit open[N];    /* {self} is recorded: leases and writes from here on */
byte revision[N], in_set[N], next_set[N], accepts[N];
bit pending[N];
byte grants[N], answers[N]; /* voters whose promise counts here; whose answer is on its way */
byte waits[N];              /* fsyncs wait for these */
bit lacks[N];               /* an acknowledged write */

/* A node that was cut off may win, or hear that its value was recorded, too late; what counts is who has the lease. */
#define SAFE(a) (!LEASE(a) || (!lacks[a] && !(HAS(in_set[a], 0) && lacks[0]) && !(HAS(in_set[a], 1) && lacks[1]) && \
                               !(HAS(in_set[a], 2) && lacks[2])))
#define LEASE(a) (office[a] != 0 && open[a] && MAJORITY(grants[a]))

inline leave(n) {
  office[n] = 0;
  open[n] = 0;
  pending[n] = 0;
  grants[n] = 0;
  answers[n] = 0;
  waits[n] = 0;
  accepts[n] = 0;
  next_set[n] = 0;
  in_set[n] = 0;
  revision[n] = 0
}

inline stop_campaign(n) {
  campaign[n] = 0;
  votes[n] = 0;
  best_epoch[n] = 0;
  best_revision[n] = 0;
  best_set[n] = 0
}

/* The voter inside n gives c its vote: sealed, on disk, said. */
inline give_vote(v, c) {
  promised[v] = campaign[c];
  promised_to[v] = c;
  held[v] = 0;
  votes[c] = votes[c] | BIT(v);
  if
  :: NEWER(value_epoch[v], value_revision[v], best_epoch[c], best_revision[c]) ->
    best_epoch[c] = value_epoch[v];
    best_revision[c] = value_revision[v];
    best_set[c] = value_set[v]
  :: else
  fi;
  if
  :: v != c && office[v] != 0 -> leave(v)
  :: else
  fi;
  if
  :: v != c && campaign[v] != 0 -> stop_campaign(v)
  :: else
  fi
}

/* Its own acceptance first, on disk. */
inline propose(a, set) {
  revision[a]++;
  next_set[a] = set;
  pending[a] = 1;
  accepts[a] = BIT(a);
  value_epoch[a] = office[a];
  value_revision[a] = revision[a];
  value_set[a] = set
}

inline recorded(a) {
  pending[a] = 0;
  accepts[a] = 0;
  if
  :: !open[a] && next_set[a] == BIT(a) -> open[a] = 1; waits[a] = 0
  :: open[a] && (in_set[a] & ~next_set[a]) != 0 -> waits[a] = next_set[a] & ~BIT(a)
  :: else
  fi;
  in_set[a] = next_set[a];
  next_set[a] = 0
}

/* What candidate c may do about voter v. */
#ifdef FLAW_STALE_PROMISE
#define FREE(v, c) 1
#else
#define FREE(v, c) (!held[v] || promised_to[v] == (c))
#endif

active proctype world() {
  byte a = 0, v = 0, n = 0;
  d_step {
    office[0] = 1;
    open[0] = 1;
    revision[0] = 1;
    in_set[0] = BIT(D) - 1;
    waits[0] = in_set[0] & ~BIT(0);
    do
    :: n < N ->
      promised[n] = 1;
      value_epoch[n] = 1;
      value_revision[n] = 1;
      value_set[n] = in_set[0];
      n++
    :: else -> break
    od;
    n = 0
  }
  do
  :: atomic {
      if
      :: a = 0
      :: a = 1
#ifdef TRIO
      :: a = 2
#endif
      fi;
      if
      :: v = 0
      :: v = 1
      :: v = 2
      fi;
      if
      /* --- lease */
      :: office[a] != 0 && open[a] && promised[v] == office[a] && promised_to[v] == a &&
         (value_revision[v] == revision[a] || (pending[a] && value_revision[v] + 1 == revision[a])) &&
         value_epoch[v] == office[a] ->
        held[v] = 1;
        answers[a] = answers[a] | BIT(v)
      :: HAS(answers[a], v) ->
        answers[a] = answers[a] & ~BIT(v);
        if
#ifdef FLAW_LEASE_FROM_ACK
        :: office[a] != 0 -> grants[a] = grants[a] | BIT(v)
#else
        :: office[a] != 0 && held[v] && promised_to[v] == a -> grants[a] = grants[a] | BIT(v)
#endif
        :: else
        fi
      :: HAS(answers[a], v) -> answers[a] = answers[a] & ~BIT(v)
      :: HAS(grants[a], v) -> grants[a] = grants[a] & ~BIT(v)
#ifdef FLAW_NO_MARGIN
      :: held[v] -> held[v] = 0
#else
      :: held[v] && !HAS(grants[promised_to[v]], v) -> held[v] = 0
#endif
#ifdef FLAW_NO_SILENCE
      :: held[v] && office[v] == 0 -> held[v] = 0 /* it restarts, and remembers no lease */
#endif
      /* --- votes */
      :: office[a] == 0 && campaign[a] == 0 && FREE(a, a) && promised[a] <= EPOCHS && v == a ->
        campaign[a] = promised[a] + 1;
        give_vote(a, a)
      :: campaign[a] != 0 && office[a] == 0 && v != a && !HAS(votes[a], v) && FREE(v, a) && campaign[a] > promised[v] ->
        give_vote(v, a)
#ifdef FLAW_VOTES_TWICE
      :: campaign[a] != 0 && v != a && !HAS(votes[a], v) && FREE(v, a) && campaign[a] == promised[v] -> give_vote(v, a)
#endif
      :: campaign[a] != 0 && v == a -> stop_campaign(a)
      :: campaign[a] != 0 && v == a && MAJORITY(votes[a]) &&
#ifdef FLAW_OWN_CLAIM
         HAS(value_set[a], a) ->
#else
         HAS(best_set[a], a) ->
#endif
        assert(office[0] != campaign[a] && office[1] != campaign[a] && office[2] != campaign[a]);
        office[a] = campaign[a];
        in_set[a] = best_set[a];
        stop_campaign(a);
        propose(a, in_set[a])
      /* --- values */
      :: pending[a] && v != a && !HAS(accepts[a], v) && office[a] >= promised[v] ->
        promised[v] = office[a];
        if
        :: promised_to[v] != a -> promised_to[v] = a; held[v] = 0
        :: else
        fi;
        value_epoch[v] = office[a];
        value_revision[v] = revision[a];
        value_set[v] = next_set[a];
        accepts[a] = accepts[a] | BIT(v);
        if
        :: office[v] != 0 -> leave(v)
        :: else
        fi;
        if
        :: campaign[v] != 0 && campaign[v] <= office[a] -> stop_campaign(v)
        :: else
        fi
      :: pending[a] && v == a && MAJORITY(accepts[a]) -> recorded(a)
      :: office[a] != 0 && !open[a] && !pending[a] && v == a -> propose(a, BIT(a))
      /* --- the in-sync set */
      :: LEASE(a) && v < D && v != a && !HAS(in_set[a], v) && !HAS(waits[a], v) -> waits[a] = waits[a] | BIT(v)
      :: open[a] && !pending[a] && revision[a] < REVISIONS && v < D && v != a && !HAS(in_set[a], v) && !lacks[v] &&
#ifndef FLAW_JOIN_BEFORE_WAIT
         HAS(waits[a], v) &&
#endif
         1 ->
        propose(a, in_set[a] | BIT(v))
      :: open[a] && !pending[a] && revision[a] < REVISIONS && v != a && HAS(in_set[a], v) ->
        propose(a, in_set[a] & ~BIT(v));
#ifdef FLAW_REMOVE_EARLY
        waits[a] = waits[a] & ~BIT(v)
#endif
      :: open[a] && !pending[a] && v < D && HAS(waits[a], v) && !HAS(in_set[a], v) -> waits[a] = waits[a] & ~BIT(v)
      /* --- data: v gets all that a has acknowledged; a write that v gets, or does not */
      :: open[a] && v < D && v != a && promised[v] <= office[a] && lacks[v] && !lacks[a] -> lacks[v] = 0
      :: LEASE(a) && waits[a] == 0 && v == a ->
        n = 0;
        do
        :: n < D -> lacks[n] = lacks[n] || (n != a); n++
        :: else -> break
        od;
        n = 0
#ifdef TRIO
      :: LEASE(a) && v != a && waits[a] == BIT(v) && promised[v] <= office[a] && !lacks[v] ->
        lacks[3 - a - v] = 1
#endif
      /* --- its process dies */
      :: office[a] != 0 && v == a -> leave(a)
      :: else
      fi;
      assert(!(LEASE(0) && LEASE(1)));
      assert(!(LEASE(0) && LEASE(2)) && !(LEASE(1) && LEASE(2)));
      assert(SAFE(0) && SAFE(1) && SAFE(2));
      a = 0;
      v = 0
    }
  od
}

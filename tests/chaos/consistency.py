# SPDX-License-Identifier: Apache-2.0
"""Judges what clients saw while faults happened: pure, from their histories and what is there at the end.

Bank: transfers between accounts; no snapshot may show another total, nothing acknowledged may be missing.
Append: transactions append unique values to lists and read whole lists. The final list is the order of its appends, so every
read must be a beginning of it, nothing that was acknowledged before a transaction began may be missing from what it read, and
no chain of dependencies may come back to where it began (serializability, as Jepsen's Elle finds it).
Answers: once a later server has answered, none that was asked after that may have been answered by an earlier one.
Lines: a chain of numbered lines in a protected folder, appended on whichever node can write.

Each function returns findings: one line of text each, none when all is right. Times: CLOCK_MONOTONIC of one machine, ns.
"""

import collections

NEVER = 1 << 63
LEAST = 50
SHOWN = 5       # of a kind of finding

# outcome: ok | fail (certainly not done) | unknown. begin_ns: before the first statement left; end_ns: after the answer; heard_ns: when the
# last statement left that was answered, whatever became of the transaction (0: none was).
# what: transfer: (from, to, amount) | balances: [amounts] | lists: [["r", key, [values]] | ["a", key, value]]
Transaction = collections.namedtuple("Transaction", "client n kind outcome begin_ns end_ns server heard_ns what")
# A line that was acknowledged (fsync returned): its number in the file, as its writer knew it.
Line = collections.namedtuple("Line", "number node begin_ns end_ns")


def shown(kind, found):
    """The first few of a kind, and how many there are."""
    found = list(found)
    lines = [f"{kind}: {each}" for each in found[:SHOWN]]
    return lines + ([f"{kind}: {len(found)} in all"] if len(found) > SHOWN else [])


def bank(history, initial, balances, transfers):
    """balances: {account: amount} at the end; transfers: {(client, n): (from, to, amount)} that are there at the end."""
    total = sum(initial.values())
    moves = [t for t in history if t.kind == "transfer"]
    acknowledged = {(t.client, t.n) for t in moves if t.outcome == "ok"}
    possible = acknowledged | {(t.client, t.n) for t in moves if t.outcome == "unknown"}
    found = shown("an acknowledged transfer is lost", sorted(acknowledged - set(transfers)))
    found += shown("a transfer is there that failed or was never made", sorted(set(transfers) - possible))
    asked = {(t.client, t.n): tuple(t.what) for t in moves}
    found += shown("a transfer is there otherwise than it was made",
                   (key for key, what in sorted(transfers.items()) if key in asked and asked[key] != tuple(what)))
    reads = [t for t in history if t.kind == "balances" and t.outcome == "ok"]
    found += shown("a snapshot shows another total", (f"{sum(t.what)} instead of {total}, {name(t)}"
                                                     for t in reads if sum(t.what) != total))
    found += shown("a snapshot shows a negative balance", (name(t) for t in reads if min(t.what) < 0))
    if sum(balances.values()) != total:
        found.append(f"the total at the end is {sum(balances.values())} instead of {total}")
    expected = collections.Counter(initial)
    for source, target, amount in transfers.values():
        expected[source] -= amount
        expected[target] += amount
    found += shown("at the end a balance is not the sum of its transfers",
                   (account for account in sorted(set(expected) | set(balances))
                    if expected.get(account, 0) != balances.get(account, 0)))
    return found


def name(transaction):
    return f"transaction {transaction.n} of client {transaction.client} on {transaction.server}"


def appends(history, lists):
    """lists: {key: [values]} at the end. A transaction of which nobody knows the outcome has happened if any of it is there; when, nobody
    knows either."""
    there = {(key, value) for key, values in lists.items() for value in values}
    done, found, place = [], [], {}
    for t in history:
        if t.kind != "lists" or t.outcome == "fail":
            continue
        made = {(key, value) for op, key, value in t.what if op == "a"}
        if t.outcome == "unknown":
            if not made & there:
                continue
            if made - there:
                found.append(f"half of a transaction is there: {sorted(made & there)} without {sorted(made - there)}, {name(t)}")
            t = t._replace(end_ns=NEVER)
        done.append(t)
    for key, values in lists.items():
        for index, value in enumerate(values):
            if (key, value) in place:
                found += [f"value {value} stands twice in list {key}"]
            place[key, value] = index
    made = {outcome: {(key, value) for t in history if t.kind == "lists" and t.outcome == outcome
                      for op, key, value in t.what if op == "a"} for outcome in ("ok", "unknown")}
    found += shown("an acknowledged append is lost", sorted(made["ok"] - set(place)))
    found += shown("a value is there that failed or was never appended", sorted(set(place) - made["ok"] - made["unknown"]))
    found += shown("a read is no beginning of the final list", (
        f"list {key}, {name(t)}" for t in done for op, key, value in t.what
        if op == "r" and lists.get(key, [])[:len(value)] != value))
    if found:
        return found        # without an order of the appends the rest can't be judged
    return in_real_time(done, place) + without_cycles(done, lists, place)


def in_real_time(done, place):
    """What was known of a list when a transaction began must be in what it reads, and come before what it appends."""
    events = collections.defaultdict(list)      # key: (time, at the end?, length known or needed, transaction)
    for t in done:
        for op, key, value in t.what:
            length = len(value) if op == "r" else place[key, value] + 1
            events[key].append((t.begin_ns, 0, length, t))
            events[key].append((t.end_ns, 1, length, t))
    late = []
    for key, each in events.items():
        known = 0
        for _, at_end, length, t in sorted(each, key=lambda event: event[:2]):
            if at_end:
                known = max(known, length)
            elif length < known:
                late.append(f"list {key}: {known} values were known when {name(t)} began, it knew {length - 1 if length else 0}")
    return shown("a transaction did not see what was acknowledged before it began", late)


def without_cycles(done, lists, place):
    """Edges: who must come before whom."""
    writer = {(key, value): i for i, t in enumerate(done) for op, key, value in t.what if op == "a"}
    after = collections.defaultdict(set)

    def edge(one, other):
        if one is not None and other is not None and one != other:
            after[one].add(other)
    for key, values in lists.items():
        for one, other in zip(values, values[1:]):
            edge(writer.get((key, one)), writer.get((key, other)))
    for i, t in enumerate(done):
        own = set()
        for op, key, value in t.what:
            if op == "a":
                own.add((key, value))
                continue
            seen = [v for v in value if (key, v) not in own]
            if seen:
                edge(writer.get((key, seen[-1])), i)
            following = lists.get(key, [])[len(value):]
            if following:
                edge(i, writer.get((key, following[0])))
    return shown("a circle of transactions, each before the next",
                 (" -> ".join(name(done[i]) for i in circle) for circle in circles(after, len(done))))


def circles(after, count):
    """Strongly connected components of more than one (Tarjan, without recursion)."""
    index, low, on_stack, stack, found = {}, {}, set(), [], []
    for root in range(count):
        if root in index or root not in after:
            continue
        work = [(root, iter(after[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, others = work[-1]
            step = next((other for other in others if other not in index or other in on_stack), None)
            if step is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    component = []
                    while not component or component[-1] != node:
                        component.append(stack.pop())
                        on_stack.discard(component[-1])
                    if len(component) > 1:
                        found.append(component[:6])
            elif step in index:
                low[node] = min(low[node], index[step])
            else:
                index[step] = low[step] = len(index)
                stack.append(step)
                on_stack.add(step)
                work.append((step, iter(after.get(step, ()))))
    return found


def answers(history):
    """A server is one start of PostgreSQL on one node: each change of the active, and each restart, is another one."""
    first = {}
    for t in history:
        if t.outcome == "ok":
            first[t.server] = min(first.get(t.server, t.end_ns), t.end_ns)
    order = sorted(first, key=first.get)
    later = {server: first[order[i + 1]] for i, server in enumerate(order[:-1])}
    return shown("a server answered after a later one had", (
        f"{name(t)}, asked {(t.heard_ns - later[t.server]) / 1e6:.1f} ms after a later server's first answer"
        for t in history if t.server in later and t.heard_ns > later[t.server]))


def lines(acknowledged, final):
    """acknowledged: Lines in any order; final: [(number, node, begin_ns)] as the file holds them at the end."""
    found = []
    numbers = [number for number, _, _ in final]
    if numbers != list(range(1, len(numbers) + 1)):
        at = next(i for i, number in enumerate(numbers) if number != i + 1)
        found.append(f"the chain of lines is broken: line {at + 1} has number {numbers[at]}")
    there = set(final)
    found += shown("an acknowledged line is lost", (
        f"{line.number} of {line.node}" for line in sorted(acknowledged)
        if (line.number, line.node, line.begin_ns) not in there))
    known, late = 0, []
    for _, at_end, line in sorted([(line.begin_ns, 0, line) for line in acknowledged] +
                                  [(line.end_ns, 1, line) for line in acknowledged]):
        if at_end:
            known = max(known, line.number)
        elif line.number <= known:
            late.append(f"{line.number} on {line.node}, begun when line {known} was acknowledged")
    return found + shown("two nodes wrote, or one wrote over what was acknowledged", late)


def read_lines(text):
    """What the file of lines holds: [(number, node, begin_ns)] and findings. Damage is what is looked for here, so nothing is taken for granted."""
    lines, found = [], []
    for i, line in enumerate(text.split("\n")[:-1]):
        words = line.split()
        if len(words) == 3 and words[0].isdigit() and words[2].isdigit():
            lines.append((int(words[0]), words[1], int(words[2])))
        else:
            found.append(f"{i + 1}: {line[:80]!r}")
    return lines, shown("not a line", found)


def senders(changes, owners):
    """changes: [(seconds, who)] each time another machine begins to send from the public address. owners: who was the active, epoch by epoch;
    None: not known. Each sender must have had an epoch of its own after that of the sender before."""
    if not changes:
        return ["nobody was seen to send from the public address: nothing was watched"]
    at = 0
    for i, (seconds, who) in enumerate(changes):
        while at < len(owners) and owners[at] not in (who, None):
            at += 1
        if at == len(owners):
            tail = ", ".join(f"{when:.2f} s {each}" for when, each in changes[max(0, i - 4):i + 2])
            return [f"{who} sent from the public address without an epoch of its own for it: ... {tail}; actives by epoch: {owners}"]
        at += owners[at] is None
    return []


def liveness(history, acknowledged, faults, rounds, clients):
    """A judge that was shown nothing finds nothing: enough of each kind must have happened for the rest to mean anything."""
    found = []
    for kind in ("transfer", "balances", "lists"):
        count = sum(t.kind == kind and t.outcome == "ok" for t in history)
        if count < LEAST:
            found.append(f"only {count} transactions of kind {kind} were acknowledged")
    reads = sum(op == "r" and bool(value) for t in history if t.kind == "lists" and t.outcome == "ok" for op, _, value in t.what)
    if reads < LEAST:
        found.append(f"only {reads} reads of lists")
    idle = sorted(set(range(clients)) - {t.client for t in history if t.outcome == "ok"})
    if idle:
        found.append(f"clients {idle} did nothing")
    if len(acknowledged) < LEAST:
        found.append(f"only {len(acknowledged)} lines were acknowledged")
    if rounds and not faults:
        found.append("no fault came to anything")
    return found

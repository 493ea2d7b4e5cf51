// SPDX-License-Identifier: Apache-2.0
// The long parts of --help: what a command does to the cluster, and examples that can be pasted.
#pragma once

namespace holdfast::cli::help {

inline constexpr const char* overall = R"(
A cluster in five commands
  a# holdfast init --name erp --channel 10.0.0.1 --public 192.0.2.10/24
  a# holdfast token                       prints a token for the second node
  b# holdfast join 10.0.0.1 --token ...
  a# holdfast protect postgresql
  a# holdfast status --watch

Each command has its own help: holdfast make-active --help

Exit status
  0  done                      3  refused by a safety rule, nothing was changed
  1  failed                    4  holdfastd isn't running, or a node or majority can't be reached
  2  wrong usage               5  not finished in time
  130  interrupted; a running plan goes on

Environment
  HOLDFAST_TOKEN   join token, when --token is not given
  HOLDFAST_SOCKET  API socket (default /run/holdfast/api.sock)
  NO_COLOR         when set, no colours

The commands are clients of the HTTP/JSON API at the socket: docs/formats/api.md.)";

inline constexpr const char* init = R"(
Founds a cluster with this machine as its only node: makes the cluster's certificate authority, takes the
first lease and, if given, puts the public addresses on this node. Nothing is protected yet.

Examples
  holdfast init --name erp --channel 10.0.0.1 --public 192.0.2.10/24
  holdfast init --name erp --channel 10.0.0.1 --channel 10.1.0.1 --public 192.0.2.10/24 --mode fsync --site berlin

Refused when this machine belongs to a cluster already, an address isn't on this machine (channel) or is in use
or leased by DHCP (public).)";

inline constexpr const char* token = R"(
Standard output has the token alone, so it can be piped; the command to type on the other machine goes to
standard error. A token is good once, for the given time, for a node of this cluster, and must be used with the
address of the node that made it. Only a hash of it is kept.

Examples
  holdfast token
  holdfast token --witness --ttl 1h
  holdfast token | ssh root@b holdfast join 10.0.0.1 --token -)";

inline constexpr const char* join = R"(
The new node checks by the token that it talks to a member of the right cluster, gets its certificate, and begins
to receive a copy of everything that is protected; the application goes on meanwhile. A token on the command line
can be seen by other users of this machine: --token - and HOLDFAST_TOKEN can't.

Examples
  holdfast join 10.0.0.1 --token -
  HOLDFAST_TOKEN=hf1-... holdfast join 10.0.0.1 --site berlin --node b

A wrong, used or expired token, a node name that is taken, or too little space for the copy is one line that says
so; nothing was changed then.)";

inline constexpr const char* member = R"(
A witness or node that is lost, re-installed or whose certificate has expired can't come back as it was: remove it, then
let it join anew. The active can't be removed: make another node the active first. Names and addresses change with
everything running; a node that moves to another address has both for a while.

Examples
  holdfast member remove w1 --yes
  holdfast member rename n2 db2
  holdfast member address db2 --channel 10.0.0.2 --channel 10.1.0.2
  holdfast member address db2 --channel 10.1.0.2)";

inline constexpr const char* protect = R"(
A plug-in knows the application's folders, units and probes. A folder is protected as it is. The application keeps
running, except for a short restart when its folders begin to be captured. What can't be protected faithfully (a
folder that holds a mount, an unsupported file system, another major version of PostgreSQL on the peer, too little
space there) is refused by name, and nothing was changed.

Examples
  holdfast protect postgresql
  holdfast protect /srv/files --name files
  holdfast protect postgresql --json --no-wait

Take it back with: holdfast unprotect NAME)";

inline constexpr const char* unprotect = R"(
The data stays on every node as it is; it is no longer captured, copied or taken over. Asks first, unless --yes.

Example
  holdfast unprotect postgresql --yes)";

inline constexpr const char* make_active = R"(
Seven steps, each shown with its time: the applications stop on the active; what is queued is sent; it stops being
active; the passive applies everything; it becomes active and appears on the network; the old active follows it;
the applications start. Nothing is lost in any mode. Until the new epoch is recorded, a failing step takes all of
it back; after that it only goes forward. Ctrl-C stops looking, not the plan.

Examples
  holdfast make-active b
  holdfast make-active b --timeout 60 --json

Refused (3) when b isn't synchronized or can't be reached; the line says what would lift that.)";

inline constexpr const char* failover = R"(
For when the active is gone and the passive did not take over by itself, for example without a witness. Asks the
voters first: while the old active may still hold its lease it is refused. Without --force it is also refused when
changes would be lost, and says how many seconds of them. --force gives those up: when the old active comes
back it is made equal to the new one.

--to takes over as the folders were at an earlier point of the node's history (holdfast timeline shows them): what
was changed since is given up. The node serves when the application is healthy at that point.

Examples
  holdfast failover
  holdfast failover --force --yes
  holdfast failover --to "2 minutes ago" --force)";

inline constexpr const char* timeline = R"(
Each passive keeps an undo history, so the protected folders can be taken back to each of its seconds: see holdfast
rollback. A gap is where it ends: nothing before it can be reached on that node. Of several nodes the first lines say how
far the cluster goes back, and on which node.

Times, here and in all commands: 14:02:11, 2026-11-25 14:02, 2026-11-25T13:02:11Z, 10m, "90s ago", or a shadow's name.

Examples
  holdfast timeline
  holdfast timeline --node b --from 14:00 --to 14:05)";

inline constexpr const char* shadow = R"(
A shadow is a name for a point of the history on all passives. Before it is made the application is asked to bring
its files in order, where its plug-in can (postgresql: a checkpoint), so that it starts faster from there. Shadows are
also made by themselves (holdfast config get shadow_every) and before a rollback; those thin out with age.

Examples
  holdfast shadow create before-upgrade --keep
  holdfast shadow list
  holdfast shadow keep before-upgrade --no-keep
  holdfast shadow delete before-upgrade --yes)";

inline constexpr const char* rollback = R"(
A passive goes back to the point and becomes the active there, checked by the application's probe before clients reach
it; the other nodes follow. First it says what will be taken back, and asks. Until the new epoch is recorded a failing
step takes everything back; nobody else can become active at the earlier point, whatever fails. What is taken back stays
as the shadow before-rollback-... on the old active, which is how a rollback is itself taken back.

Examples
  holdfast rollback --to "1 minute ago" --dry-run
  holdfast rollback --to 14:02:10
  holdfast rollback --to before-upgrade --node b --yes
  holdfast rollback --to before-rollback)";

inline constexpr const char* look = R"(
The view stays as it is while changes go on being applied. It is read-only, and for root only. With several protected
folders each is below DIR under its own path.

With --writable it can be written to, by whom its files allow, and an application can be started in it. Nothing that is
written reaches the protected folders or the other nodes, nothing of it is durable (fsync answers, and means nothing),
and all of it is gone with the view. Start no application in it that talks to the outside as if it were the real one.

Examples
  holdfast look --at 10m --node b /mnt/past
  holdfast look --at nightly --writable --node b /mnt/try
  holdfast look --list
  holdfast look --end /mnt/past --node b)";

inline constexpr const char* verify = R"(
Compares every synchronized passive with the active at one point of the log, at a bounded rate, while the application
runs. Differences are reported as events, and repaired through the log unless --no-repair. A slow scrub of the same
kind runs by itself all the time.

Examples
  holdfast verify --full --wait
  holdfast verify --sample
  holdfast verify --status
  holdfast verify --stop)";

inline constexpr const char* release = R"(
A node is held when it failed as the active too often in a short time (failures_limit, failures_minutes), or gave
its role away by itself because an application failed there. It receives, applies and votes, but does not take over
by itself, and make-active refuses it, until you have looked at it and release it. holdfast failover takes it as it is.

Examples
  holdfast release
  holdfast release n1)";

inline constexpr const char* revert = R"(
After an automatic switchover: releases the node that gave its role away and makes it the active again, as
holdfast release NODE and holdfast make-active NODE would.

Example
  holdfast revert)";

inline constexpr const char* plan = R"(
Examples
  holdfast plan
  holdfast plan --history
  holdfast plan --follow
  holdfast plan switchover-20261125T174012-3f9a --json
  holdfast plan --skip "start the applications")";

inline constexpr const char* status = R"(
From top to bottom: the running plan with its steps; nodes with role, identity, site, since when, whether the copy
is synchronized and its recovery point (age of the oldest change that the node doesn't hold durably: never shown
better than it is); channel paths with their round trip; queues; lease, votes and witness; public addresses and
client network; applications with their resources; automatic failover and the safety options, each with the
command that changes it; alerts with what to do.

In JSON each node has name, role, synchronized and recovery_point_s (null = unknown).

Examples
  holdfast status
  holdfast status --watch
  holdfast status --json | jq '.nodes[] | {name, role, synchronized, recovery_point_s}')";

inline constexpr const char* metrics = R"(
One scrape, for Prometheus' node exporter (its textfile collector) or any agent that runs a command. Every node can
tell about the whole cluster; unknown values are left out. The same text is at GET /v1/metrics.

Examples
  holdfast metrics
  holdfast metrics > /var/lib/prometheus/node-exporter/holdfast.tmp &&
    mv /var/lib/prometheus/node-exporter/holdfast.tmp /var/lib/prometheus/node-exporter/holdfast.prom)";

inline constexpr const char* wait = R"(
Shows the progress of the first copy or resynchronization and returns when all is synchronized.

Example
  holdfast wait --timeout 600 && echo safe)";

inline constexpr const char* events = R"(
Each with its time, node, severity, who asked for it, and what.

Examples
  holdfast events --since 2h
  holdfast events --follow
  holdfast events --json --since n1:1790000042,n2:1790000007)";

inline constexpr const char* config = R"(
Settings belong to the cluster: one value on all nodes, versioned, in force at once.

Examples
  holdfast config show
  holdfast config get mode
  holdfast config set mode fsync)";

}  // namespace holdfast::cli::help

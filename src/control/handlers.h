// SPDX-License-Identifier: Apache-2.0
// What the API server asks of the daemon. The daemon implements it; tests have a fake one.
//
// Threads: called from any of the server's connection threads, several at once; an implementation posts to its loop and
// waits. A call that takes longer than a few seconds answers with a plan id instead of waiting (Accepted).
// Errors: ErrorCode decides HTTP status and the CLI's exit status (docs/formats/api.md); `refused` = a safety rule said no
// and nothing was changed; message and hint are shown to the user as they are, one line each.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "control/events.h"
#include "control/history.h"
#include "control/model.h"
#include "control/requests.h"

namespace holdfast::control {

enum class Origin {
  local,    // the Unix socket: root on this machine
  peer,     // TLS with a node's certificate of this cluster
  witness,  // TLS with its witness's: may only renew it
  join,     // TLS without a certificate: may only ask to be admitted
};

struct Caller {
  Origin origin = Origin::local;
  std::string actor;         // who asks: "alice", "root", "alice via n2"; never empty in a mutation
  std::string peer_node_id;  // certificate's id (hex) when origin is peer
  std::string address;       // remote address, for the log and the rate limit
};

class Handlers {
 public:
  virtual ~Handlers() = default;

  // Reading. Must answer in any state, also before init (state "stopped", no nodes).
  virtual Result<ClusterStatus> status() = 0;
  // Events after the cursor, merged over the nodes; waits up to wait_ms for the first one.
  virtual Result<EventPage> events(const EventCursor& since, std::size_t limit, int wait_ms) = 0;
  virtual Result<ConfigReply> config() = 0;
  // `id` empty = the running or else the newest plan.
  virtual Result<PlanStatus> plan(const std::string& id) = 0;
  // The newest ones of all nodes, newest first.
  virtual Result<std::vector<PlanStatus>> plans(std::size_t limit) = 0;
  virtual Result<Timeline> timeline(const TimelineRequest&) = 0;
  virtual Result<LooksReply> looks() = 0;
  virtual Result<VerifyStatus> verify_status() = 0;
  // For one who holds a token and means to join through us.
  virtual Result<JoinAsksReply> join_asks(const Caller&, const JoinAsksRequest&) = 0;

  // Mutations.
  virtual Result<InitReply> init(const Caller&, const InitRequest&) = 0;
  virtual Result<TokenReply> token(const Caller&, const TokenRequest&) = 0;
  virtual Result<JoinReply> join(const Caller&, const JoinRequest&) = 0;     // this node joins
  virtual Result<AdmitReply> admit(const Caller&, const AdmitRequest&) = 0;  // another one joins through us
  virtual Result<RenewReply> renew(const Caller&, const RenewRequest&) = 0;  // a peer's certificate
  virtual Result<ProtectReply> protect(const Caller&, const ProtectRequest&) = 0;
  virtual Result<Accepted> unprotect(const Caller&, const UnprotectRequest&) = 0;
  virtual Result<Accepted> make_active(const Caller&, const MakeActiveRequest&) = 0;
  virtual Result<Accepted> failover(const Caller&, const FailoverRequest&) = 0;
  // One that is dead, expired or not wanted: it has no vote and no copy any more.
  virtual Result<Accepted> member_remove(const Caller&, const MemberRemoveRequest&) = 0;
  virtual Result<Accepted> member_change(const Caller&, const MemberChangeRequest&) = 0;
  virtual Result<Accepted> release(const Caller&, const ReleaseRequest&) = 0;
  // An administrator gives up on a step that is being retried (PlanRunner::skip).
  virtual Result<Accepted> skip_step(const Caller&, const SkipStepRequest&) = 0;
  virtual Result<Accepted> config_set(const Caller&, const ConfigSetRequest&) = 0;
  virtual Result<ShadowReply> shadow_create(const Caller&, const ShadowRequest&) = 0;
  virtual Result<Accepted> shadow_keep(const Caller&, const ShadowChange&) = 0;
  virtual Result<Accepted> shadow_delete(const Caller&, const ShadowChange&) = 0;
  virtual Result<RollbackReply> rollback(const Caller&, const RollbackRequest&) = 0;
  virtual Result<LookStatus> look(const Caller&, const LookRequest&) = 0;
  virtual Result<Accepted> look_end(const Caller&, const LookEndRequest&) = 0;
  virtual Result<Accepted> verify(const Caller&, const VerifyRequest&) = 0;
  virtual Result<Accepted> verify_stop(const Caller&) = 0;

  // Every mutation ends here, done or refused: an event with its actor. Must not block for long.
  virtual void record(const EventDraft& event) = 0;
};

}  // namespace holdfast::control

// SPDX-License-Identifier: Apache-2.0
// A vote without data for many clusters. One loop thread drives a VoterCore per cluster, one I/O thread holds all links, one
// thread writes register files: memory per idle cluster is a core, a certificate and its connections.
//
//   DIR/clusters/<cluster id>/{cluster.json, register, tls/{ca.crt,node.crt,node.key}}
//
// A register file that is missing or damaged means that this voter forgot: it comes back under a new incarnation, which may
// not vote until the cluster's active re-admits it (R9).
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "cluster/voter.h"
#include "network/peer_link.h"
#include "platform/clock_reading.h"

namespace holdfast::witness {

struct ClusterFiles {
  std::string dir;  // of this cluster
  std::string about() const { return dir + "/cluster.json"; }
  std::string register_file() const { return dir + "/register"; }
  std::string tls() const { return dir + "/tls"; }
};

struct ClusterAbout {
  std::string cluster_id;  // 16 hex digits
  std::string cluster_name;
  NodeId node_id;  // ours in that cluster
  std::string name;
};
Result<ClusterAbout> load_about(const std::string& file);
Status store_about(const std::string& file, const ClusterAbout& about);

// What join leaves behind for run(): all durable, the register last, so that a half-made folder is not taken for a forgetful voter.
Status store_new_voter(const ClusterFiles& files, const ClusterAbout& about, cluster::Incarnation incarnation);

// What a renewal needs to know of a cluster: the nodes sign, by the addresses that the register's configuration names.
struct RenewalAsk {
  std::string cluster_name;
  std::string tls;
  std::vector<std::string> nodes;
};
// Any thread; waits for the network. False: not due yet. An error says why none of the nodes did.
Result<bool> renew_certificate(const RenewalAsk& ask, std::int64_t now_s);
std::vector<std::string> node_addresses(const cluster::Value& value);

class Witness {
 public:
  Witness(std::string dir, network::LinkTimings timings = {});
  ~Witness();

  Status listen(const std::string& address);  // "[::]:9729"
  // Any thread: looks for clusters that came or went.
  void rescan();
  void run();   // until stop()
  void stop();  // any thread

  std::size_t clusters() const;

 private:
  struct Member {
    ClusterFiles files;
    ClusterAbout about;
    cluster::ClusterId id;
    std::unique_ptr<cluster::VoterCore> core;
    bool broken = false;  // its register can't be written: it votes no more (I7)
  };
  void post(std::function<void()> task);
  void scan();
  Status add(const std::string& cluster_id);
  void feed(Member& member, const cluster::Input& input);
  void received(const std::string& cluster, NodeId from, const Bytes& message);
  void look_at_certificates();
  void persist(Member& member, std::uint64_t id, const cluster::VoterState& state);
  void write_loop();
  Now now();

  const std::string dir_;
  platform::HolderClock holder_;
  platform::VoterClock voter_;
  std::map<std::string, Member> members_;
  std::map<std::string, std::string> scan_errors_;
  std::atomic<std::size_t> count_{0};

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool stopping_ = false;

  std::mutex write_mutex_;
  std::condition_variable write_changed_;
  std::deque<std::function<void()>> writes_;
  bool write_stopping_ = false;
  std::thread writer_;

  std::mutex renew_mutex_;
  std::condition_variable renew_changed_;
  bool renew_stopping_ = false, renew_now_ = false;
  std::vector<RenewalAsk> renewals_;  // what the renewer has to look at; copies, it waits for the network
  std::thread renewer_;
  void renew_loop();
  std::unique_ptr<network::PeerLinks> links_;
};

}  // namespace holdfast::witness

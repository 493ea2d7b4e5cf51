// SPDX-License-Identifier: Apache-2.0
#include "witness/witness.h"

#include <filesystem>
#include <random>

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "cluster/codec.h"
#include "control/join_client.h"
#include "control/pki.h"
#include "platform/durable_file.h"

namespace holdfast::witness {

using namespace cluster;

namespace {
constexpr int renew_patience_ms = 10'000;
constexpr auto first_look = std::chrono::seconds(20);  // by then its nodes have told it who they are
constexpr auto between_looks = std::chrono::seconds(12 * 3600);
constexpr auto after_trouble = std::chrono::seconds(600);

std::uint64_t random_u64() {
  std::random_device source;
  return (static_cast<std::uint64_t>(source()) << 32) | source() | 1u;
}
}  // namespace

Result<ClusterAbout> load_about(const std::string& file) {
  HF_ASSIGN(const Bytes bytes, platform::read_file(file, 1u << 16));
  try {
    const auto j = nlohmann::json::parse(as_text(bytes));
    ClusterAbout about;
    about.cluster_id = j.at("cluster_id").get<std::string>();
    about.cluster_name = j.at("cluster_name").get<std::string>();
    about.name = j.at("name").get<std::string>();
    HF_ASSIGN(about.node_id, node_id_from_hex(j.at("node_id").get<std::string>()));
    return about;
  } catch (const nlohmann::json::exception& e) {
    return fail(ErrorCode::corrupt, "{} is damaged: {}", file, e.what());
  }
}

Status store_about(const std::string& file, const ClusterAbout& a) {
  const nlohmann::json j = {
      {"cluster_id", a.cluster_id}, {"cluster_name", a.cluster_name}, {"node_id", to_hex(a.node_id)}, {"name", a.name}};
  return platform::write_file_durably(file, as_bytes(j.dump(2) + "\n"));
}

Status store_new_voter(const ClusterFiles& files, const ClusterAbout& about, Incarnation incarnation) {
  HF_TRY(platform::make_private_dir(files.dir));
  HF_TRY(store_about(files.about(), about));
  VoterState state;
  state.incarnation = incarnation;
  return platform::write_file_durably(files.register_file(), encode(state));
}

std::vector<std::string> node_addresses(const Value& value) {
  std::vector<std::string> all;
  const auto config = nlohmann::json::parse(value.config, nullptr, false);
  if (!config.is_object() || !config.contains("nodes") || !config["nodes"].is_object()) return all;
  for (const auto& [id, node] : config["nodes"].items()) {
    const auto member_id = node_id_from_hex(id);
    const cluster::Member* m = member_id ? value.member(*member_id) : nullptr;
    if (m == nullptr || m->kind != MemberKind::data || !node.is_object() || !node.contains("channel")) continue;
    for (const auto& address : node["channel"])
      if (address.is_string()) all.push_back(address.get<std::string>());
  }
  return all;
}

Result<bool> renew_certificate(const RenewalAsk& ask, std::int64_t now_s) {
  HF_ASSIGN(const control::TlsMaterial present, control::load_tls({ask.tls}, now_s));
  HF_ASSIGN(const control::CertificateInfo info, control::inspect_certificate(present.own.certificate_pem));
  if (!control::renewal_due(info, now_s)) return false;
  Status last = fail(ErrorCode::unavailable, "no node of the cluster is known here yet");
  for (const std::string& address : ask.nodes) {
    last = control::renew_through_member({ask.tls}, address, renew_patience_ms);
    if (last) return true;
  }
  return tl::unexpected(last.error());
}

Witness::Witness(std::string dir, network::LinkTimings timings) : dir_(std::move(dir)) {
  network::LinkEvents events;
  events.up = [](const std::string&, const network::Hello&) {};
  events.down = [](const std::string&, NodeId) {};
  events.summary = [](const std::string&, NodeId, std::string) {};
  events.message = [this](const std::string& c, NodeId from, ByteView m) {
    post([this, c, from, copy = Bytes(m.begin(), m.end())] { received(c, from, copy); });
  };
  events.request = [](const std::string&, NodeId, std::string op, std::string, network::Responder respond) {
    respond(fail(ErrorCode::invalid, "a witness does not know the request '{}'", op));
  };
  links_ = std::make_unique<network::PeerLinks>(std::move(events), timings);
  writer_ = std::thread([this] { write_loop(); });
  renewer_ = std::thread([this] { renew_loop(); });
  post([this] { scan(); });
}

Witness::~Witness() {
  links_.reset();
  {
    const std::lock_guard lock(write_mutex_);
    write_stopping_ = true;
  }
  write_changed_.notify_one();
  writer_.join();
  {
    const std::lock_guard lock(renew_mutex_);
    renew_stopping_ = true;
  }
  renew_changed_.notify_one();
  renewer_.join();
}

Status Witness::listen(const std::string& address) { return links_->listen(address); }
std::size_t Witness::clusters() const { return count_; }
void Witness::rescan() {
  post([this] { scan(); });
}

void Witness::post(std::function<void()> task) {
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
  }
  changed_.notify_one();
}

void Witness::run() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (stopping_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

void Witness::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
}

Now Witness::now() {
  const platform::ClockReading reading = platform::read_clocks();
  return Now{holder_.now_ns(reading), voter_.now_ns(reading)};
}

void Witness::scan() {
  std::map<std::string, bool> there;
  std::error_code gone;
  for (auto it = std::filesystem::directory_iterator(dir_ + "/clusters", gone);
       !gone && it != std::filesystem::directory_iterator(); it.increment(gone))
    there[it->path().filename().string()] = true;
  for (auto it = members_.begin(); it != members_.end();) {
    if (there.contains(it->first)) {
      ++it;
      continue;
    }
    log_info("cluster {} was removed", it->second.about.cluster_name);
    links_->remove_realm(it->first);
    it = members_.erase(it);
  }
  for (const auto& [id, yes] : there) {
    if (members_.contains(id)) continue;
    const Status added = add(id);
    const std::string error = added ? "" : added.error().to_string();
    if (!error.empty() && scan_errors_[id] != error) log_error("no votes for cluster {}: {}", id, error);
    scan_errors_[id] = error;
  }
  count_ = members_.size();
}

Status Witness::add(const std::string& cluster_id) {
  Member m;
  m.files.dir = dir_ + "/clusters/" + cluster_id;
  HF_ASSIGN(m.about, load_about(m.files.about()));
  HF_ASSIGN(const NodeId numeric, node_id_from_hex(cluster_id));
  if (m.about.cluster_id != cluster_id)
    return fail(ErrorCode::corrupt, "{} is of cluster {}", m.files.about(), m.about.cluster_id);
  m.id = ClusterId(numeric.value);
  in::Started started;
  started.fresh = Incarnation(random_u64());
  auto bytes = platform::read_file(m.files.register_file(), 1u << 20);
  if (bytes) {
    auto state = decode_voter_state(*bytes);
    if (state)
      started.state = std::move(*state);
    else
      log_error("cluster {}: the register is damaged ({}); this witness votes again when it was re-admitted",
                m.about.cluster_name, state.error().message);
  } else if (bytes.error().code == ErrorCode::not_found) {
    log_warning("cluster {}: the register is gone; this witness votes again when it was re-admitted",
                m.about.cluster_name);
  } else {
    return tl::unexpected(bytes.error());
  }
  network::LinkRealm realm;
  realm.cluster = cluster_id;
  realm.tls_dir = m.files.tls();
  realm.hello.cluster = cluster_id;
  realm.hello.id = m.about.node_id;
  realm.hello.kind = network::PeerKind::witness;
  realm.hello.name = m.about.name;
  realm.hello.software = std::string("holdfast-witness ") + HF_VERSION;
  HF_TRY(links_->add_realm(realm));
  m.core = std::make_unique<VoterCore>(m.id, m.about.node_id, MemberKind::witness);
  Member& kept = members_[cluster_id] = std::move(m);
  feed(kept, std::move(started));
  log_info("votes for cluster {} ({})", kept.about.cluster_name, cluster_id);
  return {};
}

void Witness::feed(Member& member, const Input& input) {
  Actions actions = member.core->step(input, now());
  for (Action& action : actions) {
    if (auto* p = std::get_if<out::Persist>(&action))
      persist(member, p->id, p->state);
    else if (auto* s = std::get_if<out::Send>(&action))
      links_->send(member.about.cluster_id, s->envelope.to, encode(s->envelope));
  }
}

void Witness::received(const std::string& cluster, NodeId from, const Bytes& message) {
  const auto it = members_.find(cluster);
  if (it == members_.end() || it->second.broken) return;
  auto envelope = decode_envelope(message);
  if (!envelope || envelope->from != from) {
    log_warning("cluster {}: message of {} dropped: {}", it->second.about.cluster_name, to_hex(from),
                envelope ? "it says it is from somebody else" : envelope.error().message);
    return;
  }
  feed(it->second, in::Received{std::move(*envelope)});
}

void Witness::persist(Member& member, std::uint64_t id, const VoterState& state) {
  {
    const std::lock_guard lock(write_mutex_);
    writes_.push_back(
        [this, cluster = member.about.cluster_id, file = member.files.register_file(), bytes = encode(state), id] {
          const Status written = platform::write_file_durably(file, bytes);
          post([this, cluster, id, written] {
            const auto it = members_.find(cluster);
            if (it == members_.end()) return;
            if (written) return feed(it->second, in::Persisted{id});
            it->second.broken = true;
            log_error("cluster {}: {}; no more votes until holdfast-witness is restarted",
                      it->second.about.cluster_name, written.error().to_string());
          });
        });
  }
  write_changed_.notify_one();
}

// On the loop: what the renewer may know is copied for it.
void Witness::look_at_certificates() {
  std::vector<RenewalAsk> asks;
  for (const auto& [id, m] : members_) {
    const ValuePtr& value = m.core->accepted();
    asks.push_back({m.about.cluster_name, m.files.tls(), value ? node_addresses(*value) : std::vector<std::string>{}});
  }
  {
    const std::lock_guard lock(renew_mutex_);
    renewals_ = std::move(asks);
    renew_now_ = true;
  }
  renew_changed_.notify_one();
}

// A new certificate is used by itself: the links look at the file. Half a year is left when the first attempt is made.
void Witness::renew_loop() {
  std::map<std::string, std::string> told;
  auto pause = first_look;
  for (;;) {
    {
      std::unique_lock lock(renew_mutex_);
      if (renew_changed_.wait_for(lock, pause, [this] { return renew_stopping_; })) return;
    }
    post([this] { look_at_certificates(); });
    std::vector<RenewalAsk> asks;
    {
      std::unique_lock lock(renew_mutex_);
      renew_changed_.wait(lock, [this] { return renew_stopping_ || renew_now_; });
      if (renew_stopping_) return;
      renew_now_ = false;
      asks = renewals_;
    }
    pause = between_looks;
    for (const RenewalAsk& ask : asks) {
      {
        const std::lock_guard lock(renew_mutex_);
        if (renew_stopping_) return;
      }
      const auto renewed = renew_certificate(
          ask, std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch())
                   .count());
      const std::string trouble = renewed ? "" : renewed.error().to_string();
      if (renewed && *renewed) log_info("cluster {}: the certificate of this witness was renewed", ask.cluster_name);
      if (!trouble.empty() && told[ask.cluster_name] != trouble)
        log_error("cluster {}: the certificate of this witness can't be renewed: {}", ask.cluster_name, trouble);
      told[ask.cluster_name] = trouble;
      if (!renewed) pause = after_trouble;
    }
  }
}

void Witness::write_loop() {
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock lock(write_mutex_);
      write_changed_.wait(lock, [this] { return write_stopping_ || !writes_.empty(); });
      if (writes_.empty()) return;  // what waits is written before a stop
      job = std::move(writes_.front());
      writes_.pop_front();
    }
    job();
  }
}

}  // namespace holdfast::witness

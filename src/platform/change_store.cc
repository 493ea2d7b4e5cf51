// SPDX-License-Identifier: Apache-2.0
#include "platform/change_store.h"

#include <lmdb.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "platform/durable_file.h"

namespace holdfast::platform {
namespace {

constexpr std::size_t map_bytes = std::size_t{16} << 30;  // address space: the file grows with what is in it
constexpr unsigned max_tables = 256;

tl::unexpected<Error> fail_lmdb(int rc, const char* what) {
  if (rc == MDB_MAP_FULL) return fail(ErrorCode::no_space, "change map: {} GiB are full", map_bytes >> 30);
  if (rc > 0) return fail_errno(rc, "change map: cannot {}", what);
  return fail(ErrorCode::corrupt,
              "change map: cannot {}: {}: stop the mirror and remove the folder \"changes\" of its state; peers that "
              "are behind are compared as a whole then",
              what, mdb_strerror(rc));
}

struct Transaction {  // aborted unless committed
  MDB_txn* txn = nullptr;
  ~Transaction() {
    if (txn) mdb_txn_abort(txn);
  }
  Status begin(MDB_env* env, unsigned flags) {
    if (const int rc = mdb_txn_begin(env, nullptr, flags, &txn); rc != 0) return fail_lmdb(rc, "begin");
    return {};
  }
  Status commit() {
    if (const int rc = mdb_txn_commit(std::exchange(txn, nullptr)); rc != 0) return fail_lmdb(rc, "commit");
    return {};
  }
};

struct Cursor {
  MDB_cursor* cursor = nullptr;
  ~Cursor() {
    if (cursor) mdb_cursor_close(cursor);
  }
};

MDB_val value_of(ByteView bytes) { return {bytes.size(), const_cast<std::uint8_t*>(bytes.data())}; }
ByteView view_of(const MDB_val& v) { return {static_cast<const std::uint8_t*>(v.mv_data), v.mv_size}; }
Bytes bytes_of(const MDB_val& v) {
  const ByteView view = view_of(v);
  return {view.begin(), view.end()};
}

class Table final : public ports::ChangeStore {
 public:
  Table(MDB_env* env, MDB_dbi headers, MDB_dbi keys, std::string name)
      : env_(env), headers_(headers), keys_(keys), name_(std::move(name)) {}

  Result<Bytes> header() override {
    Transaction t;
    HF_TRY(t.begin(env_, MDB_RDONLY));
    MDB_val key = value_of(as_bytes(name_)), value{};
    const int rc = mdb_get(t.txn, headers_, &key, &value);
    if (rc == MDB_NOTFOUND) return Bytes{};
    if (rc != 0) return fail_lmdb(rc, "read");
    return bytes_of(value);
  }

  Status merge(const std::vector<ports::ChangeEntry>& entries, const Combine& combine, ByteView header) override {
    Transaction t;
    HF_TRY(t.begin(env_, 0));
    for (const auto& e : entries) {
      MDB_val key = value_of(e.key), old{};
      const int found = mdb_get(t.txn, keys_, &key, &old);
      if (found != 0 && found != MDB_NOTFOUND) return fail_lmdb(found, "read");
      Bytes both;
      if (found == 0) {
        HF_ASSIGN(both, combine(view_of(old), e.value));
      }
      MDB_val value = value_of(found == 0 ? both : e.value);
      if (const int rc = mdb_put(t.txn, keys_, &key, &value, 0); rc != 0) return fail_lmdb(rc, "write");
    }
    HF_TRY(put_header(t.txn, header));
    return t.commit();
  }

  Status clear(ByteView header) override {
    Transaction t;
    HF_TRY(t.begin(env_, 0));
    if (const int rc = mdb_drop(t.txn, keys_, 0); rc != 0) return fail_lmdb(rc, "clear a table");
    HF_TRY(put_header(t.txn, header));
    return t.commit();
  }

  Result<std::vector<ports::ChangeEntry>> scan(ByteView after, std::size_t count) override {
    Transaction t;
    HF_TRY(t.begin(env_, MDB_RDONLY));
    Cursor c;
    if (const int rc = mdb_cursor_open(t.txn, keys_, &c.cursor); rc != 0) return fail_lmdb(rc, "read");
    std::vector<ports::ChangeEntry> found;
    MDB_val key = value_of(after), value{};
    int rc = mdb_cursor_get(c.cursor, &key, &value, after.empty() ? MDB_FIRST : MDB_SET_RANGE);
    for (; rc == 0 && found.size() < count; rc = mdb_cursor_get(c.cursor, &key, &value, MDB_NEXT)) {
      const Bytes bytes = bytes_of(key);
      if (found.empty() && !after.empty() && std::equal(bytes.begin(), bytes.end(), after.begin(), after.end()))
        continue;
      found.push_back({bytes, bytes_of(value)});
    }
    if (rc != 0 && rc != MDB_NOTFOUND) return fail_lmdb(rc, "read");
    return found;
  }

  Result<bool> contains(ByteView bytes) override {
    Transaction t;
    HF_TRY(t.begin(env_, MDB_RDONLY));
    MDB_val key = value_of(bytes), value{};
    const int rc = mdb_get(t.txn, keys_, &key, &value);
    if (rc != 0 && rc != MDB_NOTFOUND) return fail_lmdb(rc, "read");
    return rc == 0;
  }

  Result<std::uint64_t> size() override {
    Transaction t;
    HF_TRY(t.begin(env_, MDB_RDONLY));
    MDB_stat stat{};
    if (const int rc = mdb_stat(t.txn, keys_, &stat); rc != 0) return fail_lmdb(rc, "count");
    return stat.ms_entries;
  }

 private:
  Status put_header(MDB_txn* txn, ByteView header) {
    MDB_val key = value_of(as_bytes(name_)), value = value_of(header);
    if (const int rc = mdb_put(txn, headers_, &key, &value, 0); rc != 0) return fail_lmdb(rc, "write");
    return {};
  }

  MDB_env* env_;
  MDB_dbi headers_, keys_;
  std::string name_;
};

}  // namespace

Result<std::unique_ptr<LmdbChangeStores>> LmdbChangeStores::open(const std::string& dir) {
  HF_TRY(make_private_dir(dir));
  std::unique_ptr<LmdbChangeStores> made(new LmdbChangeStores);
  MDB_env* env = nullptr;
  if (const int rc = mdb_env_create(&env); rc != 0) return fail_lmdb(rc, "start");
  made->env_ = env;
  mdb_env_set_mapsize(env, map_bytes);
  mdb_env_set_maxdbs(env, max_tables);
  if (const int rc = mdb_env_open(env, dir.c_str(), MDB_NOTLS | MDB_NORDAHEAD, 0600); rc != 0)
    return fail_lmdb(rc, "open");
  Transaction t;
  HF_TRY(t.begin(env, 0));
  if (const int rc = mdb_dbi_open(t.txn, "headers", MDB_CREATE, &made->headers_); rc != 0)
    return fail_lmdb(rc, "open its headers");
  HF_TRY(t.commit());
  return made;
}

LmdbChangeStores::~LmdbChangeStores() {
  if (env_) mdb_env_close(static_cast<MDB_env*>(env_));
}

Result<std::unique_ptr<ports::ChangeStore>> LmdbChangeStores::of_peer(NodeId peer) {
  auto* env = static_cast<MDB_env*>(env_);
  const std::string name = to_hex(peer);
  Transaction t;
  HF_TRY(t.begin(env, 0));
  MDB_dbi keys = 0;
  if (const int rc = mdb_dbi_open(t.txn, name.c_str(), MDB_CREATE, &keys); rc != 0)
    return fail_lmdb(rc, "open a table");
  HF_TRY(t.commit());
  return std::make_unique<Table>(env, headers_, keys, name);
}

}  // namespace holdfast::platform

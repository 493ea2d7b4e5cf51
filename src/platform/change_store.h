// SPDX-License-Identifier: Apache-2.0
// ports::ChangeStore over one LMDB environment, a table a peer, and one table of headers. Commits are synced.
#pragma once

#include <memory>
#include <string>

#include "ports/change_store.h"

namespace holdfast::platform {

class LmdbChangeStores final : public ports::ChangeStores {
 public:
  // `dir` is made when missing. A damaged environment is an error that says what to remove: peers are compared as a whole then.
  static Result<std::unique_ptr<LmdbChangeStores>> open(const std::string& dir);
  ~LmdbChangeStores() override;
  Result<std::unique_ptr<ports::ChangeStore>> of_peer(NodeId peer) override;  // must not outlive this

 private:
  LmdbChangeStores() = default;
  void* env_ = nullptr;  // MDB_env*
  unsigned headers_ = 0;
};

}  // namespace holdfast::platform

// SPDX-License-Identifier: Apache-2.0
#include "sim/mirror_model.h"

namespace holdfast::sim {

bool contains(const Log& log, const Log& record) {
  const Record* at = log.get();
  while (at != nullptr && at->length > record->length) at = at->before.get();
  return at == record.get();
}

void MirrorModel::activate(Epoch e) {
  active = true;
  draining = false;
  epoch = e;
  wait.clear();
  acked.clear();
  acked_at.clear();
  unacknowledged.clear();
}

void MirrorModel::stop_capture() {
  active = false;
  draining = false;
  unacknowledged.clear();
}

void MirrorModel::crash() {
  stop_capture();
  alive = false;
  log = durable;
  following = {};
  ++life;
}

}  // namespace holdfast::sim

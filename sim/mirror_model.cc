// SPDX-License-Identifier: Apache-2.0
#include "sim/mirror_model.h"

namespace holdfast::sim {

bool contains(Log log, Log record) {
  while (log != nullptr && log->length > record->length) log = log->before;
  return log == record;
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

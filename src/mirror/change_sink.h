// SPDX-License-Identifier: Apache-2.0
// Who notes what changed, for a peer whose queue was given up (peer_queue.h). One a peer; it outlives the queue.
// Every call comes with the queue's mutex held, so never two at once: memory only, no waiting, no call back into the queue.
#pragma once

#include "base/bytes.h"

namespace holdfast::mirror {

class ChangeSink {
 public:
  virtual ~ChangeSink() = default;
  // Whole records (log::inspect has accepted them; log::decode gives their fields), in the order of the log, as this peer would have been sent
  // them: what is addressed to somebody else is a noop. Some may come twice: more is harmless. They come
  //  - when they are written to the spill, so that giving that up later costs no second reading,
  //  - in mode map, when they leave the ring,
  //  - when they are taken, as long as fold_taken_until() says so.
  virtual void fold(ByteView records) = 0;
  // The peer needs nothing of what was folded: it has it, or it is made equal as a whole. Never between resume_from_map() and settled(), but
  // for a restart().
  virtual void forget() = 0;
};

}  // namespace holdfast::mirror

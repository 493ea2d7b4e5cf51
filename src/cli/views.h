// SPDX-License-Identifier: Apache-2.0
// What the user sees of the model. Pure: the same input gives the same lines (golden tests hold them).
#pragma once

#include "cli/text.h"
#include "control/events.h"
#include "control/model.h"
#include "control/requests.h"

namespace holdfast::cli {

// The whole cluster on one screen.
std::string status_view(const control::ClusterStatus& status, const Look& look);
// A plan with its steps; also part of the status.
std::string plan_view(const control::PlanStatus& plan, const Look& look);
void add_plan(Page& page, const control::PlanStatus& plan);
std::string event_line(const control::Event& event, const Look& look);
std::string config_view(const control::ConfigReply& config, const Look& look);

Style style_of_state(const std::string& state);

}  // namespace holdfast::cli

// SPDX-License-Identifier: Apache-2.0
// What the user sees of the model. Pure: the same input gives the same lines (golden tests hold them).
#pragma once

#include "cli/text.h"
#include "control/events.h"
#include "control/history.h"
#include "control/model.h"
#include "control/requests.h"

namespace holdfast::cli {

// The whole cluster on one screen.
std::string status_view(const control::ClusterStatus& status, const Look& look);
std::string plans_view(const std::vector<control::PlanStatus>& plans, const Look& look);
// A plan with its steps; also part of the status.
std::string plan_view(const control::PlanStatus& plan, const Look& look);
void add_plan(Page& page, const control::PlanStatus& plan);
std::string event_line(const control::Event& event, const Look& look);
std::string config_view(const control::ConfigReply& config, const Look& look);

// The past; times in this process's zone.
std::string timeline_view(const control::Timeline& timeline, const Look& look);
std::string shadows_view(const control::Timeline& timeline, const Look& look);
std::string rollback_view(const control::RollbackReply& reply, std::int64_t now_ms, const Look& look);
std::string verify_view(const control::VerifyStatus& status, std::int64_t now_ms, const Look& look);

Style style_of_state(const std::string& state);
std::string clock_text(std::int64_t wall_ms);  // "2026-11-25 17:40:00 UTC"

}  // namespace holdfast::cli

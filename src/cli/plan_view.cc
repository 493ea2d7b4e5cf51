// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <fmt/core.h>

#include "cli/views.h"

namespace holdfast::cli {
namespace {

struct Mark {
  const char* unicode;
  const char* ascii;
  Style style;
};

Mark mark_of(const std::string& state) {
  if (state == "done") return {"✓", "+", Style::good};
  if (state == "running") return {"▸", ">", Style::busy};
  if (state == "failed") return {"✗", "x", Style::bad};
  if (state == "undoing") return {"↶", "<", Style::warn};
  if (state == "undone") return {"↶", "-", Style::warn};
  if (state == "skipped") return {"»", "s", Style::warn};
  return {"·", ".", Style::dim};
}

void add_step(Page& page, const control::PlanStepStatus& step, std::size_t name_width) {
  const Look& look = page.look();
  const Mark mark = mark_of(step.state);
  Line line(look, 2);
  line.add(look.unicode ? mark.unicode : mark.ascii, mark.style).add(" ");
  line.add(pad(step.name, name_width), step.state == "pending" ? Style::dim : Style::plain).add("  ");
  if (step.state == "pending") {
    page.add(line);
    return;
  }
  line.add(fmt::format("{:>7}", fmt::format("{:.1f} s", step.seconds)),
           step.state == "running" ? Style::busy : Style::plain);
  if (step.state != "done") line.add("  ").add(step.state, mark.style);
  if (step.background) line.add("  in the background", Style::dim);
  if (step.state == "running" && step.timeout_s > 0)
    line.add(fmt::format(" (at most {:.0f} s)", step.timeout_s), Style::dim);
  if (step.attempts > 1) line.add(fmt::format("  attempt {}", step.attempts), Style::warn);
  page.add(line);
  if (!step.detail.empty() && step.state != "done") page.wrapped(step.detail, 6, Style::dim);
}

}  // namespace

void add_plan(Page& page, const control::PlanStatus& plan) {
  const Look& look = page.look();
  Line head(look, 1);
  head.add("PLAN ", Style::bold).add(plan.kind, Style::bold);
  if (!plan.from.empty() || !plan.to.empty())
    head.add(fmt::format("  {} -> {}", plan.from.empty() ? "?" : plan.from, plan.to));
  const Style style = plan.state == "done" ? Style::good : plan.state == "running" ? Style::busy : Style::warn;
  head.add("  ").add(plan.state, style).add(fmt::format("  {:.1f} s", plan.seconds));
  if (!plan.actor.empty()) head.add("  asked by " + plan.actor, Style::dim);
  page.add(head);
  if (!plan.reason.empty()) page.wrapped(plan.reason, 2, Style::dim);
  std::size_t width = 0;
  for (const auto& step : plan.steps) width = std::max(width, visible_width(step.name));
  for (const auto& step : plan.steps) add_step(page, step, std::min<std::size_t>(width, 44));
  if (!plan.error.empty()) page.wrapped(plan.error, 2, Style::bad);
  if (plan.state == "running") {
    Line note(look, 2);
    note.add(plan.epoch_recorded ? "the new epoch is recorded: from here only forward"
                                 : "until the new epoch is recorded a failure takes everything back",
             Style::dim);
    page.add(note);
  }
}

std::string plans_view(const std::vector<control::PlanStatus>& plans, const Look& look) {
  Page page(look);
  if (plans.empty()) page.wrapped("No plan has run yet.", 1);
  for (const control::PlanStatus& plan : plans) {
    Line line(look, 1);
    const Style style = plan.state == "done" ? Style::good : plan.state == "running" ? Style::busy : Style::warn;
    line.add(clock_text(plan.started_ms).substr(0, 19), Style::dim).add("  ");
    line.add(pad(plan.kind, 10)).add("  ");
    line.add(pad(fmt::format("{} -> {}", plan.from.empty() ? "-" : plan.from, plan.to.empty() ? "-" : plan.to), 12))
        .add("  ");
    line.add(pad(plan.state, 9), style).add(fmt::format("  {:>8}", fmt::format("{:.1f} s", plan.seconds)));
    page.add(line);
    page.wrapped(fmt::format("{}{}{}", plan.id, plan.actor.empty() ? "" : "  asked by ", plan.actor), 5, Style::dim);
    if (!plan.error.empty()) page.wrapped(plan.error, 5, Style::warn);
  }
  return page.text();
}

std::string plan_view(const control::PlanStatus& plan, const Look& look) {
  Page page(look);
  add_plan(page, plan);
  Line id(look, 2);
  id.add("id " + plan.id, Style::dim);
  page.add(id);
  return page.text();
}

}  // namespace holdfast::cli

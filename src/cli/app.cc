// SPDX-License-Identifier: Apache-2.0
#include "cli/app.h"

#include <algorithm>
#include <memory>
#include <ostream>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/help.h"
#include "control/api_server.h"

namespace holdfast::cli {
namespace {

// All options of all commands: parsed into here, used by the one command that was given.
struct Options {
  bool json = false, yes = false, no_wait = false;
  int timeout_s = 0;
  InitOptions init;
  TokenOptions token;
  JoinCommandOptions join;
  ProtectOptions protect;
  FailoverOptions failover;
  StatusOptions status;
  EventsOptions events;
  PlanOptions plan;
  TimelineOptions timeline;
  ShadowOptions shadow;
  RollbackOptions rollback;
  LookOptions look;
  VerifyOptions verify;
  std::string unprotect, make_active, release, member, new_name, key, value;
  std::vector<std::string> channel;
  std::function<int(Session&)> run;
};

CLI::App* command(CLI::App& parent, Options& o, const char* name, const char* text, const char* footer,
                  std::function<int(Session&)> run) {
  CLI::App* sub = parent.add_subcommand(name, text);
  sub->footer(footer);
  sub->add_flag("--json", o.json, "Answer in JSON on standard output");
  sub->callback([&o, run = std::move(run)] { o.run = run; });
  return sub;
}

void follows(CLI::App* sub, Options& o) {
  sub->add_flag("--no-wait", o.no_wait, "Start it and return; follow it with holdfast plan --follow");
  sub->add_option("--timeout", o.timeout_s, "Stop following after so many seconds (exit status 5); the plan goes on")
      ->type_name("SECONDS")
      ->check(CLI::PositiveNumber);
}

void add_membership(CLI::App& app, Options& o) {
  CLI::App* init = command(app, o, "init", "Found a cluster; this machine becomes its primary node", help::init,
                           [&o](Session& s) { return init_command(s, o.init); });
  init->add_option("--name", o.init.name, "Name of the cluster")->required()->type_name("NAME");
  init->add_option("--channel", o.init.channel,
                   "This node's address on the network between the nodes; repeat for several paths")
      ->required()
      ->type_name("ADDRESS")
      ->expected(1)
      ->take_all();
  init->add_option("--public", o.init.public_addresses,
                   "Address that clients use; it moves with the active. Not one leased by DHCP. May be repeated")
      ->type_name("ADDRESS/LEN")
      ->expected(1)
      ->take_all();
  init->add_option("--site", o.init.site,
                   "Label of the place; nodes with the same label are on one LAN (default: default)")
      ->type_name("LABEL");
  init->add_option("--node", o.init.node, "Name of this node (default: the host name)")->type_name("NAME");
  init->add_option("--mode", o.init.mode,
                   "async (default): never slower than the own disk; fsync: an fsync returns when a passive has it too")
      ->type_name("MODE")
      ->check(CLI::IsMember({"async", "fsync"}));

  CLI::App* token = command(app, o, "token", "Print a join token for one new node or witness", help::token,
                            [&o](Session& s) { return token_command(s, o.token); });
  token->add_flag("--witness", o.token.witness, "For a witness instead of a node");
  token->add_option("--ttl", o.token.ttl, "How long it is good: 1m to 24h")
      ->type_name("DURATION")
      ->capture_default_str();

  CLI::App* join = command(app, o, "join", "Let this machine join a cluster through one of its members", help::join,
                           [&o](Session& s) { return join_command(s, o.join); });
  join->add_option("address", o.join.address, "Channel address of a member")->required()->type_name("ADDRESS");
  join->add_option("--token", o.join.token,
                   "Join token; - reads it from standard input; else the variable HOLDFAST_TOKEN")
      ->type_name("TOKEN");
  join->add_option("--site", o.join.site, "Label of the place (default: default)")->type_name("LABEL");
  join->add_option("--node", o.join.node, "Name of this node (default: the host name)")->type_name("NAME");
  join->add_option("--channel", o.join.channel,
                   "This node's channel address (default: the local address that reaches ADDRESS); may be repeated")
      ->type_name("ADDRESS")
      ->expected(1)
      ->take_all();
  join->add_option("--public", o.join.public_addresses,
                   "Public address of this node's site, when it is another site's. May be repeated")
      ->type_name("ADDRESS/LEN")
      ->expected(1)
      ->take_all();
}

void add_members(CLI::App& app, Options& o) {
  CLI::App* member = app.add_subcommand("member", "Nodes and the witness");
  member->footer(help::member);
  member->require_subcommand(1);
  CLI::App* remove =
      command(*member, o, "remove", "Take a dead or unwanted node or witness out of the cluster; asks first", "",
              [&o](Session& s) { return member_remove_command(s, o.member); });
  remove->add_option("name", o.member, "Its name")->required()->type_name("NAME");
  remove->add_flag("--yes", o.yes, "Don't ask");

  CLI::App* rename = command(*member, o, "rename", "Give a node or the witness another name", "",
                             [&o](Session& s) { return member_change_command(s, o.member, o.new_name, {}); });
  rename->add_option("name", o.member, "Its name")->required()->type_name("NAME");
  rename->add_option("new-name", o.new_name, "Its new name")->required()->type_name("NEW");

  CLI::App* address = command(*member, o, "address", "Change the channel addresses of a node or the witness", "",
                              [&o](Session& s) { return member_change_command(s, o.member, "", o.channel); });
  address->add_option("name", o.member, "Its name")->required()->type_name("NAME");
  address->add_option("--channel", o.channel, "All addresses that it is to have; repeat for several paths")
      ->required()
      ->type_name("ADDRESS")
      ->expected(1)
      ->take_all();
}

void add_protection(CLI::App& app, Options& o) {
  CLI::App* protect = command(app, o, "protect", "Protect an application, or a folder", help::protect,
                              [&o](Session& s) { return protect_command(s, o.protect); });
  protect
      ->add_option("what", o.protect.what,
                   "A plug-in that knows the application (postgresql), or a folder's absolute path")
      ->required()
      ->type_name("PLUG-IN|FOLDER");
  protect->add_option("--name", o.protect.name, "Name of the application (default: the plug-in's or the folder's)")
      ->type_name("NAME");
  protect->add_flag("--write-through", o.protect.write_through, "Order even what was not fsynced; slower");
  follows(protect, o);

  CLI::App* unprotect = command(app, o, "unprotect", "End the protection of an application or folder; the data stays",
                                help::unprotect, [&o](Session& s) { return unprotect_command(s, o.unprotect); });
  unprotect->add_option("what", o.unprotect, "Application, plug-in or folder")->required()->type_name("WHAT");
  unprotect->add_flag("--yes", o.yes, "Don't ask");
  follows(unprotect, o);
}

void add_roles(CLI::App& app, Options& o) {
  CLI::App* make_active =
      command(app, o, "make-active", "Move the active role to NODE (switchover): nothing is lost", help::make_active,
              [&o](Session& s) { return make_active_command(s, o.make_active); });
  make_active->add_option("node", o.make_active, "Node that is to be active")->required()->type_name("NODE");
  follows(make_active, o);

  CLI::App* failover = command(app, o, "failover", "Take over although the active is gone", help::failover,
                               [&o](Session& s) { return failover_command(s, o.failover); });
  failover->add_option("node", o.failover.node, "Node that takes over (default: this one)")->type_name("NODE");
  failover->add_flag("--force", o.failover.force,
                     "Also when changes are lost that only the old active has; asks first");
  failover->add_flag("--although-it-answers", o.failover.although_it_answers,
                     "With --force: the active still answers its clients: you end it in some other way");
  failover->add_option("--to", o.failover.to, "Take over as it was at this time or shadow; asks first")
      ->type_name("TIME|SHADOW");
  failover->add_flag("--yes", o.yes, "Don't ask");
  follows(failover, o);

  CLI::App* release = command(app, o, "release", "Let a held node take over by itself again", help::release,
                              [&o](Session& s) { return release_command(s, o.release); });
  release->add_option("node", o.release, "The held node (default: the one there is)")->type_name("NODE");
  follows(release, o);

  CLI::App* revert = command(app, o, "revert", "Move the role back to the node that gave it away by itself",
                             help::revert, [](Session& s) { return revert_command(s); });
  follows(revert, o);

  CLI::App* plan = command(app, o, "plan", "Show a plan with its steps (default: the running or last one)", help::plan,
                           [&o](Session& s) { return plan_command(s, o.plan); });
  plan->add_option("id", o.plan.id, "Which plan")->type_name("ID");
  plan->add_flag("--history", o.plan.history,
                 "The plans that all nodes remember, newest first, with how long they took");
  plan->add_flag("--follow", o.plan.follow, "Until it ends; the exit status tells how");
  plan->add_option("--skip", o.plan.skip, "Give up on this step, which failed and is being retried")->type_name("STEP");
  plan->add_option("--timeout", o.timeout_s, "Stop following after so many seconds")
      ->type_name("SECONDS")
      ->check(CLI::PositiveNumber);
}

void add_looking(CLI::App& app, Options& o) {
  CLI::App* status = command(app, o, "status", "The whole cluster on one screen", help::status,
                             [&o](Session& s) { return status_command(s, o.status); });
  status->add_flag("--watch", o.status.watch, "Refresh every second until Ctrl-C; with --json one line a second");

  command(app, o, "metrics", "The status as numbers, in Prometheus' text format", help::metrics,
          [](Session& s) { return metrics_command(s); });

  CLI::App* wait = command(app, o, "wait", "Wait until every passive node is synchronized", help::wait,
                           [](Session& s) { return wait_command(s); });
  wait->add_option("--timeout", o.timeout_s, "Give up after so many seconds (exit status 5)")
      ->type_name("SECONDS")
      ->check(CLI::PositiveNumber);

  CLI::App* events = command(app, o, "events", "What happened, on all nodes", help::events,
                             [&o](Session& s) { return events_command(s, o.events); });
  events
      ->add_option("--since", o.events.since,
                   "From a time (2026-01-31T12:00:00Z), a while ago (2h) or a position (\"next\" of --json)")
      ->type_name("WHEN");
  events->add_option("--last", o.events.last, "Without --since: this many")
      ->type_name("N")
      ->capture_default_str()
      ->check(CLI::Range(1, 100'000));
  events->add_flag("--follow", o.events.follow, "Go on with new ones until Ctrl-C; with --json one event a line");

  CLI::App* config = app.add_subcommand("config", "Read and change the cluster's settings, live");
  config->footer(help::config);
  config->require_subcommand(1);
  CLI::App* get = command(*config, o, "get", "Print the value of one setting", "",
                          [&o](Session& s) { return config_get_command(s, o.key); });
  get->add_option("key", o.key, "Setting")->required()->type_name("KEY");
  CLI::App* set = command(*config, o, "set", "Change one setting, on all nodes, without disturbing replication", "",
                          [&o](Session& s) { return config_set_command(s, o.key, o.value); });
  set->add_option("key", o.key, "Setting")->required()->type_name("KEY");
  set->add_option("value", o.value, "New value")->required()->type_name("VALUE");
  follows(set, o);
  command(*config, o, "show", "List all settings with their values, defaults and meaning", "",
          [](Session& s) { return config_show_command(s); });
}

void add_shadows(CLI::App& app, Options& o) {
  CLI::App* shadow = app.add_subcommand("shadow", "Named points to go back to");
  shadow->footer(help::shadow);
  shadow->require_subcommand(1);
  const auto named = [&o](CLI::App* sub) {
    sub->add_option("name", o.shadow.name, "The shadow")->required()->type_name("NAME");
    return sub;
  };
  const auto on_node = [&o](CLI::App* sub) {
    sub->add_option("--node", o.shadow.node, "Only there (default: every node that has it)")->type_name("NODE");
  };
  CLI::App* create = named(command(*shadow, o, "create", "Make one now", "",
                                   [&o](Session& s) { return shadow_create_command(s, o.shadow); }));
  create->add_flag("--keep", o.shadow.keep, "Never drop it for its age");
  create->add_flag("--no-quiesce", o.shadow.no_quiesce, "Don't ask the application to bring its files in order first");
  command(*shadow, o, "list", "List them, newest first", "", [](Session& s) { return shadow_list_command(s); });
  CLI::App* keep = named(command(*shadow, o, "keep", "Keep one, and the history since then, whatever its age", "",
                                 [&o](Session& s) { return shadow_keep_command(s, o.shadow); }));
  keep->add_flag("--no-keep", o.shadow.no_keep, "Take that back");
  on_node(keep);
  CLI::App* remove = named(command(*shadow, o, "delete", "Forget one; asks first", "",
                                   [&o](Session& s) { return shadow_delete_command(s, o.shadow); }));
  remove->add_flag("--yes", o.yes, "Don't ask");
  on_node(remove);
}

void add_past(CLI::App& app, Options& o) {
  CLI::App* timeline = command(app, o, "timeline", "How far each node can go back: points, shadows, gaps",
                               help::timeline, [&o](Session& s) { return timeline_command(s, o.timeline); });
  timeline->add_option("--from", o.timeline.from, "From this time on, point by point")->type_name("TIME");
  timeline->add_option("--to", o.timeline.to, "Up to this time, point by point")->type_name("TIME");
  timeline->add_option("--node", o.timeline.node, "Only this node's")->type_name("NODE");
  timeline->add_option("--points", o.timeline.points, "The newest so many points of each node")
      ->type_name("N")
      ->check(CLI::Range(0, 1000));
  add_shadows(app, o);

  CLI::App* rollback = command(app, o, "rollback", "Take the protected folders back to an earlier point",
                               help::rollback, [&o](Session& s) { return rollback_command(s, o.rollback); });
  rollback->add_option("--to", o.rollback.to, "The point: a time or a shadow")->required()->type_name("TIME|SHADOW");
  rollback->add_option("--node", o.rollback.node, "Node that goes back and becomes active (default: the best one)")
      ->type_name("NODE");
  rollback->add_flag("--dry-run", o.rollback.dry_run, "Only say what would happen");
  rollback->add_flag("--yes", o.yes, "Don't ask");
  follows(rollback, o);

  CLI::App* look = command(app, o, "look", "Mount the protected folders as they were", help::look,
                           [&o](Session& s) { return look_command(s, o.look); });
  look->add_option("dir", o.look.dir, "Folder to mount it at, on that node")->type_name("DIR");
  look->add_option("--at", o.look.at, "The point: a time or a shadow")->type_name("TIME|SHADOW");
  look->add_option("--node", o.look.node, "On this node (default: this one)")->type_name("NODE");
  CLI::Option* writable =
      look->add_flag("--writable", o.look.writable, "It can be written to; what is written is gone at its end");
  look->add_option("--scratch-mib", o.look.scratch_mib,
                   "At most so much is written (default: a tenth of what is free, up to 1024)")
      ->type_name("MIB")
      ->check(CLI::Range(16, 1 << 30))
      ->needs(writable);
  look->add_flag("--end", o.look.end, "End the view at DIR");
  look->add_flag("--list", o.look.list, "List the views of all nodes");

  CLI::App* verify = command(app, o, "verify", "Compare the copies with the active's files while it runs", help::verify,
                             [&o](Session& s) { return verify_command(s, o.verify); });
  verify->add_flag("--full", o.verify.full, "Every byte (default)");
  verify->add_flag("--sample", o.verify.sample, "All names and attributes, a part of the contents")->excludes("--full");
  verify->add_flag("--no-repair", o.verify.no_repair, "Only report differences");
  verify->add_flag("--trust-active", o.verify.trust_active,
                   "Repair also where nobody knows which side is right: the active's copy is taken, the other's stays "
                   "in its history");
  verify->add_option("--rate", o.verify.rate_mib_s, "Read at most so many MiB/s")
      ->type_name("MIB")
      ->check(CLI::Range(1, 100'000));
  verify->add_flag("--wait", o.verify.wait, "Until it ends; fails when differences remain");
  verify->add_flag("--status", o.verify.status, "Show how far it is and what the last one found");
  verify->add_flag("--stop", o.verify.stop, "Stop it");
  verify->add_option("--timeout", o.timeout_s, "Stop waiting after so many seconds")
      ->type_name("SECONDS")
      ->check(CLI::PositiveNumber);
}

std::string command_path(const CLI::App& app) {
  std::string path = "holdfast";
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().front();
    path += " " + at->get_name();
  }
  return path;
}

int usage_error(const CLI::App& app, const std::string& what, const Surroundings& around) {
  std::string line = what.substr(0, what.find('\n'));
  while (!line.empty() && (line.back() == '.' || line.back() == ' ')) line.pop_back();
  around.err << fmt::format("holdfast: {}: see {} --help\n", printable(line), command_path(app));
  return exit_usage;
}

}  // namespace

int run(const std::vector<std::string>& arguments, const Surroundings& around) {
  Options o;
  CLI::App app("Keeps an application and its data in service on two or three servers", "holdfast");
  app.footer(help::overall);
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "Help of all commands");
  app.get_formatter()->column_width(30);
  add_membership(app, o);
  add_members(app, o);
  add_protection(app, o);
  add_looking(app, o);
  add_roles(app, o);
  add_past(app, o);
  CLI::App* version = command(app, o, "version", "Print the version", "", [](Session& s) {
    if (s.json)
      s.print_json({{"version", HF_VERSION}});
    else
      s.print("holdfast " HF_VERSION "\n");
    return static_cast<int>(exit_ok);
  });
  version->description("Print the version");

  if (arguments.empty()) {
    around.out << app.help();
    return exit_usage;
  }
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 wants them
  try {
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    around.out << app.help();  // of the command that was given, if any
    return exit_ok;
  } catch (const CLI::CallForAllHelp&) {
    around.out << app.help("", CLI::AppFormatMode::All);
    return exit_ok;
  } catch (const CLI::ParseError& e) {
    return usage_error(app, e.what(), around);
  }
  const std::string socket = around.environment("HOLDFAST_SOCKET");
  Session session(around, socket.empty() ? control::api_socket_path : socket);
  session.json = o.json;
  session.assume_yes = o.yes;
  session.wait = !o.no_wait;
  session.timeout_s = o.timeout_s;
  return o.run(session);
}

}  // namespace holdfast::cli

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
  std::string unprotect, make_active, key, value;
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
  failover->add_flag("--yes", o.yes, "Don't ask");
  follows(failover, o);

  CLI::App* release = command(app, o, "release", "End the hold after an automatic switchover", help::release,
                              [](Session& s) { return release_command(s); });
  follows(release, o);

  CLI::App* plan = command(app, o, "plan", "Show a plan with its steps (default: the running or last one)", help::plan,
                           [&o](Session& s) { return plan_command(s, o.plan); });
  plan->add_option("id", o.plan.id, "Which plan")->type_name("ID");
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
  add_protection(app, o);
  add_looking(app, o);
  add_roles(app, o);
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

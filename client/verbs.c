/* SPDX-License-Identifier: ISC */
/* The table of verbs: what exists, its options, its help.  The code is in cli_*.c. */
#include <string.h>
#include "client/cli_impl.h"

#define ANY SIZE_MAX

const struct om_verb_opt om_common_opts[] = {
	{ "endpoint", 'e', "URL", "the daemon: ipc://PATH, tcp://HOST:PORT or a path" },
	{ "key", 0, "FILE", "our CURVE pair, for tcp" },
	{ "server-key", 0, "KEY", "the daemon's public key, for tcp" },
	{ "reply-timeout", 0, "TIME", "wait this long for an answer (10s)" },
	{ "json", 'j', NULL, "print JSON" },
	{ "no-headers", 0, NULL, "tables without their first line" },
	{ "help", 'h', NULL, "show this" },
	{ "watch", 0, "TIME", "show again every TIME" },
};
const size_t om_common_opt_count = OM_COUNT(om_common_opts);

static const struct om_verb_opt submit_opts[] = {
	{ "lang", 'l', "LANG", "interpreter: python, sh ... (from the name or the #! line)" },
	{ "cores", 'c', "N", "virtual CPUs (1)" },
	{ "memory", 'm', "SIZE", "memory: 512M, 2G (512M)" },
	{ "disk", 0, "SIZE", "scratch disk (256M)" },
	{ "timeout", 't', "TIME", "time limit of the job: 90s, 10m, 2h (1h)" },
	{ "env", 'E', "K=V", "environment; K alone takes ours" },
	{ "file", 'f', "NAME[=PATH]", "put a file into the job's directory" },
	{ "no-files", 0, NULL, "do not send files that are named as arguments" },
	{ "output", 'o', "NAME", "keep this file of the job's directory at the end" },
	{ "output-max", 0, "SIZE", "keep this much of stdout and stderr (16M)" },
	{ "stdin", 'i', "FILE", "standard input; - for ours" },
	{ "network", 0, "tunnel|none", "none: a VM without a network card" },
	{ "wg", 'w', "FILE", "the tunnel: a wg-quick file ($OMERTA_WG)" },
	{ "bandwidth", 0, "KBIT", "limit of the tunnel in each direction" },
	{ "job", 0, "ID", "choose the id: the same id and job again is the same job" },
	{ "activity", 'a', "TEXT", "what the job does, for the operator" },
	{ "gpu", 0, NULL, "needs a GPU" },
	{ "array", 0, "INDICES", "many jobs: 0-9, 1,3,5-7, 0-15:4; %N at the end: N at a time" },
	{ "hold", 0, NULL, "do not start before a release" },
	{ "requeue", 0, NULL, "queue it again when a crash of the provider lost it" },
	{ "retries", 0, "N", "attempts after a failed one" },
	{ "backoff", 0, "TIME", "wait before the first retry; doubles (10s)" },
	{ "not-before", 0, "WHEN", "start no earlier: 2h from now, or a time" },
	{ "after", 0, "ID", "start after this job has succeeded" },
	{ "after-any", 0, NULL, "with --after: after any end of it" },
	{ "on-behalf", 0, "PEER", "operator: the peer this job is for" },
	{ "network-id", 0, "NETWORK", "operator: that peer's network" },
	{ "wait", 'W', NULL, "wait for the end, show the output, exit as the job does" },
	{ "follow", 'F', NULL, "the same" },
	{ "quiet", 'q', NULL, "with --wait: no progress, no summary" },
};
static const struct om_verb_opt list_opts[] = {
	{ "state", 's', "STATE", "only jobs in this state; may be repeated" },
	{ "peer", 0, "PEER", "only jobs of this requester" },
	{ "array", 0, "ID", "only jobs of this array, in order" },
	{ "since", 0, "WHEN", "submitted at or after: 2h ago, or a time" },
	{ "limit", 'n', "N", "at most N rows (100)" },
};
static const struct om_verb_opt output_opts[] = {
	{ "follow", 'f', NULL, "go on until the job has ended" },
	{ "stderr", 0, NULL, "standard error instead of standard output" },
	{ "file", 0, "NAME", "a file that the job left" },
	{ "offset", 0, "BYTES", "start there" },
	{ "to", 'o', "PATH", "write to PATH; goes on where a broken transfer ended" },
};
static const struct om_verb_opt cancel_opts[] = {
	{ "grace", 0, "TIME", "a running job has this long after SIGTERM (5s)" },
	{ "reason", 'r', "TEXT", "why" },
	{ "state", 0, "STATE", "all jobs in this state" },
	{ "peer", 0, "PEER", "all jobs of this requester" },
	{ "level", 0, "LEVEL", "all jobs of this level" },
};
static const struct om_verb_opt wait_opts[] = {
	{ "from", 0, "STATE", "only until its state is another than this" },
	{ "timeout", 't', "TIME", "give up after this long" },
	{ "follow", 'F', NULL, "show the output as it comes" },
	{ "quiet", 'q', NULL, "no progress, no summary" },
};
static const struct om_verb_opt status_opts[] = {
	{ "detailed", 'd', NULL, "the queue and the filter too" },
};
static const struct om_verb_opt approve_opts[] = {
	{ "always", 0, "peer|network", "and trust their requesters, or networks, from now on" },
};
static const struct om_verb_opt move_opts[] = {
	{ "to", 0, "PLACE", "front or back of its level" },
	{ "level", 0, "LEVEL", "to this level: owner, network or external" },
	{ "reason", 'r', "TEXT", "why, for the audit" },
};
static const struct om_verb_opt purge_opts[] = {
	{ "state", 's', "STATE", "operator: all that ended so; may be repeated" },
	{ "before", 0, "WHEN", "operator: all that ended before: 30d ago, or a time" },
	{ "all", 0, NULL, "operator: all that have ended" },
};
static const struct om_verb_opt reason_opts[] = {
	{ "reason", 'r', "TEXT", "why" },
};
static const struct om_verb_opt trace_opts[] = {
	{ "off", 0, NULL, "no longer" },
	{ "dump", 0, NULL, "show what traced actors did last (without ACTOR or JOB: always)" },
};
static const struct om_verb_opt rule_opts[] = {
	{ "kind", 'k', "KIND",
	  "resources, activity, quiet_hours, peers, networks, rate, concurrency, quota" },
	{ "priority", 'p', "N", "higher goes first" },
	{ "disabled", 0, NULL, "not in force yet" },
};
static const struct om_verb_opt test_opts[] = {
	{ "peer", 0, "PEER", "as if it came from PEER" },
	{ "network", 0, "NETWORK", "and its network" },
	{ "cores", 'c', "N", "asked for" },
	{ "memory", 'm', "SIZE", "asked for" },
	{ "disk", 0, "SIZE", "asked for" },
	{ "timeout", 't', "TIME", "asked for" },
	{ "gpu", 0, NULL, "asked for" },
	{ "activity", 'a', "TEXT", "described as" },
};
static const struct om_verb_opt audit_opts[] = {
	{ "since", 0, "WHEN", "at or after: 2h ago, or a time" },
	{ "job", 0, "ID", "of one job" },
	{ "limit", 'n', "N", "at most N entries (all)" },
	{ "follow", 'f', NULL, "go on with what comes" },
};
static const struct om_verb_opt config_opts[] = {
	{ "origin", 0, NULL, "where each value comes from" },
};
static const struct om_verb_opt stop_opts[] = {
	{ "now", 0, NULL, "cancel running jobs at once" },
	{ "timeout", 't', "TIME", "drain for at most this long" },
	{ "reason", 'r', "TEXT", "why, for those whose jobs are refused" },
};
static const struct om_verb_opt events_opts[] = {
	{ "events-endpoint", 0, "URL", "where the daemon publishes ($OMERTA_EVENTS)" },
	{ "job", 0, "ID", "of one job" },
	{ "count", 'n', "N", "end after N events" },
};

#define OPTS(table) table, OM_COUNT(table)

const struct om_verb om_verbs[] = {
	{ "submit", OM_VERB_JOBS, "FILE [ARGUMENT...]", "submit a script; - reads it from stdin",
	  om_cli_submit, 1, ANY, OPTS(submit_opts), true, false },
	{ "list", OM_VERB_JOBS, "", "jobs, newest first", om_cli_list, 0, 0, OPTS(list_opts), false,
	  true },
	{ "show", OM_VERB_JOBS, "ID", "everything about one job", om_cli_show, 1, 1, NULL, 0, false,
	  true },
	{ "output", OM_VERB_JOBS, "ID", "what a job printed, or a file it left", om_cli_output, 1,
	  1, OPTS(output_opts), false, false },
	{ "wait", OM_VERB_JOBS, "ID...", "wait for the end, exit as the job does", om_cli_wait, 1,
	  ANY, OPTS(wait_opts), false, false },
	{ "cancel", OM_VERB_JOBS, "[ID...]", "end jobs, queued or running", om_cli_cancel, 0, ANY,
	  OPTS(cancel_opts), false, false },
	{ "hold", OM_VERB_JOBS, "ID...", "keep queued jobs from starting", om_cli_hold, 1, ANY,
	  NULL, 0, false, false },
	{ "release", OM_VERB_JOBS, "ID...", "let held jobs start", om_cli_release, 1, ANY, NULL, 0,
	  false, false },
	{ "retry", OM_VERB_JOBS, "ID...",
	  "one more attempt for jobs that failed, were lost or are dead", om_cli_retry, 1, ANY,
	  NULL, 0, false, false },
	{ "purge", OM_VERB_JOBS, "[ID...]", "remove ended jobs with their output", om_cli_purge, 0,
	  ANY, OPTS(purge_opts), false, false },
	{ "status", OM_VERB_JOBS, "", "how the daemon is", om_cli_status, 0, 0, OPTS(status_opts),
	  false, true },
	{ "ping", OM_VERB_JOBS, "", "is the daemon there?", om_cli_ping, 0, 0, NULL, 0, false,
	  false },

	{ "pending", OM_VERB_OPERATOR, "", "jobs that wait for approval", om_cli_pending, 0, 0,
	  NULL, 0, false, true },
	{ "approve", OM_VERB_OPERATOR, "ID...", "let them into the queue", om_cli_approve, 1, ANY,
	  OPTS(approve_opts), false, false },
	{ "deny", OM_VERB_OPERATOR, "ID...", "refuse them", om_cli_deny, 1, ANY, OPTS(reason_opts),
	  false, false },
	{ "move", OM_VERB_OPERATOR, "ID...", "change the place of queued jobs", om_cli_move, 1, ANY,
	  OPTS(move_opts), false, false },
	{ "queue", OM_VERB_OPERATOR, "", "the queue's counters", om_cli_queue, 0, 0, NULL, 0, false,
	  true },
	{ "queue pause", OM_VERB_OPERATOR, "[REASON]", "start no more jobs", om_cli_pause, 0, 1,
	  NULL, 0, false, false },
	{ "queue drain", OM_VERB_OPERATOR, "[REASON]",
	  "take no new jobs, finish those that are here", om_cli_drain, 0, 1, OPTS(reason_opts),
	  false, false },
	{ "queue resume", OM_VERB_OPERATOR, "", "start jobs again, and take new ones",
	  om_cli_resume, 0, 0, NULL, 0, false, false },
	{ "queue limit", OM_VERB_OPERATOR, "N", "run at most N jobs at a time", om_cli_limit, 1, 1,
	  NULL, 0, false, false },
	{ "queue usage", OM_VERB_OPERATOR, "", "how jobs ended, waited and ran", om_cli_usage_table,
	  0, 0, NULL, 0, false, true },
	{ "rules", OM_VERB_OPERATOR, "", "the rules, in order of evaluation", om_cli_rules, 0, 0,
	  NULL, 0, false, false },
	{ "rules add", OM_VERB_OPERATOR, "NAME [KEY=VALUE...]", "add a rule", om_cli_rule_add, 1,
	  ANY, OPTS(rule_opts), false, false },
	{ "rules change", OM_VERB_OPERATOR, "NAME [KEY=VALUE...]", "replace a rule",
	  om_cli_rule_change, 1, ANY, OPTS(rule_opts), false, false },
	{ "rules remove", OM_VERB_OPERATOR, "NAME", "remove a rule", om_cli_rule_remove, 1, 1, NULL,
	  0, false, false },
	{ "rules enable", OM_VERB_OPERATOR, "NAME", "enable a rule", om_cli_rule_enable, 1, 1, NULL,
	  0, false, false },
	{ "rules disable", OM_VERB_OPERATOR, "NAME", "disable a rule", om_cli_rule_disable, 1, 1,
	  NULL, 0, false, false },
	{ "rules test", OM_VERB_OPERATOR, "[FILE]", "how a job would be decided, step by step",
	  om_cli_rules_test, 0, 1, OPTS(test_opts), false, false },
	{ "filter", OM_VERB_OPERATOR, "", "the filter's counters", om_cli_filter, 0, 0, NULL, 0,
	  false, true },
	{ "filter reset", OM_VERB_OPERATOR, "", "reset them", om_cli_filter_reset, 0, 0, NULL, 0,
	  false, false },
	{ "audit", OM_VERB_OPERATOR, "", "the audit trail", om_cli_audit, 0, 0, OPTS(audit_opts),
	  false, false },
	{ "audit verify", OM_VERB_OPERATOR, "", "check its hash chain", om_cli_audit_verify, 0, 0,
	  NULL, 0, false, false },
	{ "config show", OM_VERB_OPERATOR, "", "settings in force", om_cli_config, 0, 0,
	  OPTS(config_opts), false, false },
	{ "config set", OM_VERB_OPERATOR, "KEY VALUE", "change a live setting, durably",
	  om_cli_config_set, 2, 2, NULL, 0, false, false },
	{ "config unset", OM_VERB_OPERATOR, "KEY", "undo config set: as the files have it",
	  om_cli_config_unset, 1, 1, NULL, 0, false, false },
	{ "config reload", OM_VERB_OPERATOR, "", "read the files again, all or nothing",
	  om_cli_config_reload, 0, 0, NULL, 0, false, false },
	{ "config trust", OM_VERB_OPERATOR, "NETWORK", "trust a network", om_cli_trust, 1, 1, NULL,
	  0, false, false },
	{ "config untrust", OM_VERB_OPERATOR, "NETWORK", "trust it no more", om_cli_untrust, 1, 1,
	  NULL, 0, false, false },
	{ "config trusted", OM_VERB_OPERATOR, "", "trusted networks", om_cli_trusted, 0, 0, NULL, 0,
	  false, false },
	{ "config trust-peer", OM_VERB_OPERATOR, "PEER", "trust a peer, whatever its network",
	  om_cli_trust_peer, 1, 1, NULL, 0, false, false },
	{ "config untrust-peer", OM_VERB_OPERATOR, "PEER", "trust it no more", om_cli_untrust_peer,
	  1, 1, NULL, 0, false, false },
	{ "config trusted-peers", OM_VERB_OPERATOR, "", "trusted peers", om_cli_trusted_peers, 0, 0,
	  NULL, 0, false, false },
	{ "config block", OM_VERB_OPERATOR, "PEER", "block a peer", om_cli_block, 1, 1, NULL, 0,
	  false, false },
	{ "config unblock", OM_VERB_OPERATOR, "PEER", "unblock a peer", om_cli_unblock, 1, 1, NULL,
	  0, false, false },
	{ "config blocked", OM_VERB_OPERATOR, "", "blocked peers", om_cli_blocked, 0, 0, NULL, 0,
	  false, false },
	{ "events", OM_VERB_OPERATOR, "", "what happens to jobs, as it happens", om_cli_events, 0,
	  0, OPTS(events_opts), false, false },
	{ "top", OM_VERB_OPERATOR, "", "queue, running jobs, actors; again and again", om_cli_top,
	  0, 0, NULL, 0, false, true },
	{ "actors", OM_VERB_OPERATOR, "", "what each actor does", om_cli_actors, 0, 0, NULL, 0,
	  false, true },
	{ "trace", OM_VERB_OPERATOR, "[ACTOR|JOB]", "trace actors; what traced ones did last",
	  om_cli_trace, 0, 1, OPTS(trace_opts), false, false },
	{ "metrics", OM_VERB_OPERATOR, "", "all counters as Prometheus text", om_cli_metrics, 0, 0,
	  NULL, 0, false, false },
	{ "stop", OM_VERB_OPERATOR, "", "drain, then end the daemon", om_cli_stop, 0, 0,
	  OPTS(stop_opts), false, false },

	{ "call", OM_VERB_OTHER, "TYPE [JSON]", "send any message of the protocol", om_cli_call, 1,
	  2, NULL, 0, false, false },
	{ "keygen", OM_VERB_OTHER, "FILE", "make a CURVE pair, print the public key", om_cli_keygen,
	  1, 1, NULL, 0, false, false },
	{ "version", OM_VERB_OTHER, "", "of this program", om_cli_version, 0, 0, NULL, 0, false,
	  false },
};
const size_t om_verb_count = OM_COUNT(om_verbs);

const struct om_verb *
om_verb_find(const char *name, const char *sub)
{
	size_t n = strlen(name);

	for (size_t i = 0; i < om_verb_count; i++) {
		const char *full = om_verbs[i].name;

		if (sub == NULL ? strcmp(full, name) == 0
				: strncmp(full, name, n) == 0 && full[n] == ' ' &&
				      strcmp(full + n + 1, sub) == 0) {
			return &om_verbs[i];
		}
	}
	return NULL;
}

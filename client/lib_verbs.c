/* SPDX-License-Identifier: ISC */
/* One short function for each message that is not about one job's way. */
#include <stddef.h>
#include "client/client_impl.h"

/* A request with one string; a NULL value is left out. */
static int
verb_str(struct omerta *o, const char *type, const char *field, const char *value,
	 struct omerta_body **answer)
{
	struct omerta_body *body = omerta_body_new(type);
	int rc;

	if (body == NULL) {
		return om_client_fail(o, "no_memory", "out of memory");
	}
	if (value != NULL) {
		omerta_set_str(body, field, value);
	}
	rc = omerta_call(o, type, body, answer);
	omerta_body_free(body);
	return rc;
}

/* The answer's count. */
static int
verb_counted(struct omerta *o, const char *type, const struct omerta_body *body, uint64_t *count)
{
	struct omerta_body *answer = NULL;
	int rc = omerta_call(o, type, body, &answer);

	if (rc == 0 && count != NULL) {
		*count = omerta_get_u64(answer, "count");
	}
	omerta_body_free(answer);
	return rc;
}

static int
verb_refs(struct omerta *o, const char *type, const char *const *ids, size_t n, const char *reason,
	  const char *trust, uint64_t *count)
{
	struct omerta_body *body = omerta_body_new(type);
	int rc;

	for (size_t i = 0; i < n; i++) {
		omerta_add_str(body, "jobs", ids[i]);
	}
	if (reason != NULL) {
		omerta_set_str(body, "reason", reason);
	}
	if (trust != NULL) {
		omerta_set_str(body, "trust", trust);
	}
	rc = verb_counted(o, type, body, count);
	omerta_body_free(body);
	return rc;
}

int
omerta_ping(struct omerta *o)
{
	return omerta_call(o, "ping", NULL, NULL);
}

int
omerta_get(struct omerta *o, const char *id, struct omerta_body **info)
{
	return verb_str(o, "job.get", "job", id, info);
}

int
omerta_list(struct omerta *o, const struct omerta_body *query, struct omerta_body **table)
{
	return omerta_call(o, "job.list", query, table);
}

int
omerta_cancel(struct omerta *o, const char *id, const char *reason)
{
	struct omerta_body *body = omerta_body_new("job.cancel");
	int rc;

	omerta_set_str(body, "job", id);
	if (reason != NULL) {
		omerta_set_str(body, "reason", reason);
	}
	rc = omerta_cancel_many(o, body, NULL);
	omerta_body_free(body);
	return rc;
}

int
omerta_cancel_many(struct omerta *o, const struct omerta_body *query, uint64_t *count)
{
	return verb_counted(o, "job.cancel", query, count);
}

int
omerta_hold(struct omerta *o, const char *const *ids, size_t n, uint64_t *count)
{
	return verb_refs(o, "job.hold", ids, n, NULL, NULL, count);
}

int
omerta_release(struct omerta *o, const char *const *ids, size_t n, uint64_t *count)
{
	return verb_refs(o, "job.release", ids, n, NULL, NULL, count);
}

int
omerta_approve(struct omerta *o, const char *const *ids, size_t n, const char *trust,
	       uint64_t *count)
{
	return verb_refs(o, "job.approve", ids, n, NULL, trust, count);
}

int
omerta_deny(struct omerta *o, const char *const *ids, size_t n, const char *reason, uint64_t *count)
{
	return verb_refs(o, "job.deny", ids, n, reason, NULL, count);
}

int
omerta_retry(struct omerta *o, const char *const *ids, size_t n, uint64_t *count)
{
	return verb_refs(o, "job.retry", ids, n, NULL, NULL, count);
}

int
omerta_purge(struct omerta *o, const struct omerta_body *query, uint64_t *count)
{
	return verb_counted(o, "job.purge", query, count);
}

int
omerta_move(struct omerta *o, const struct omerta_body *move, uint64_t *count)
{
	return verb_counted(o, "job.move", move, count);
}

int
omerta_submit_batch(struct omerta *o, const struct omerta_body *batch, struct omerta_body **results)
{
	return omerta_call(o, "job.submit_batch", batch, results);
}

int
omerta_queue_usage(struct omerta *o, struct omerta_body **table)
{
	return omerta_call(o, "queue.usage", NULL, table);
}

int
omerta_queue_stats(struct omerta *o, struct omerta_body **stats)
{
	return omerta_call(o, "queue.stats", NULL, stats);
}

int
omerta_status(struct omerta *o, struct omerta_body **status)
{
	return omerta_call(o, "daemon.status", NULL, status);
}

int
omerta_queue_pause(struct omerta *o, const char *reason)
{
	return verb_str(o, "queue.pause", "reason", reason, NULL);
}

int
omerta_queue_drain(struct omerta *o, const char *reason)
{
	return verb_str(o, "queue.drain", "reason", reason, NULL);
}

int
omerta_queue_resume(struct omerta *o)
{
	return omerta_call(o, "queue.resume", NULL, NULL);
}

int
omerta_queue_limit(struct omerta *o, uint64_t max_jobs)
{
	struct omerta_body *body = omerta_body_new("queue.limits");
	int rc;

	omerta_set_u64(body, "max_jobs", max_jobs);
	rc = omerta_call(o, "queue.limits", body, NULL);
	omerta_body_free(body);
	return rc;
}

int
omerta_stop(struct omerta *o, bool now, int64_t drain_ms, const char *reason)
{
	struct omerta_body *body = omerta_body_new("daemon.stop");
	int rc;

	omerta_set_bool(body, "now", now);
	if (drain_ms > 0) {
		omerta_set_u64(body, "timeout_ms", (uint64_t)drain_ms);
	}
	if (reason != NULL) {
		omerta_set_str(body, "reason", reason);
	}
	rc = omerta_call(o, "daemon.stop", body, NULL);
	omerta_body_free(body);
	return rc;
}

int
omerta_metrics(struct omerta *o, struct omerta_body **metrics)
{
	return omerta_call(o, "daemon.metrics", NULL, metrics);
}

int
omerta_actors(struct omerta *o, struct omerta_body **table)
{
	return omerta_call(o, "daemon.actors", NULL, table);
}

int
omerta_trace(struct omerta *o, const char *actor, bool off, struct omerta_body **lines)
{
	struct omerta_body *body = omerta_body_new("daemon.trace");
	int rc;

	if (actor != NULL) {
		omerta_set_str(body, "actor", actor);
	}
	if (off) {
		omerta_set_bool(body, "off", true);
	}
	rc = omerta_call(o, "daemon.trace", body, lines);
	omerta_body_free(body);
	return rc;
}

int
omerta_config(struct omerta *o, struct omerta_body **table)
{
	return omerta_call(o, "config.show", NULL, table);
}

int
omerta_config_set(struct omerta *o, const char *key, const char *value)
{
	struct omerta_body *body = omerta_body_new("config.set");
	int rc;

	omerta_set_str(body, "key", key);
	omerta_set_str(body, "value", value);
	rc = omerta_call(o, "config.set", body, NULL);
	omerta_body_free(body);
	return rc;
}

int
omerta_config_unset(struct omerta *o, const char *key)
{
	return verb_str(o, "config.unset", "key", key, NULL);
}

int
omerta_config_reload(struct omerta *o, struct omerta_body **changes)
{
	return omerta_call(o, "config.reload", NULL, changes);
}

int
omerta_trust(struct omerta *o, const char *network)
{
	return verb_str(o, "config.trust", "value", network, NULL);
}

int
omerta_untrust(struct omerta *o, const char *network)
{
	return verb_str(o, "config.untrust", "value", network, NULL);
}

int
omerta_trusted(struct omerta *o, struct omerta_body **list)
{
	return omerta_call(o, "config.trusted", NULL, list);
}

int
omerta_trust_peer(struct omerta *o, const char *peer)
{
	return verb_str(o, "config.trust_peer", "value", peer, NULL);
}

int
omerta_untrust_peer(struct omerta *o, const char *peer)
{
	return verb_str(o, "config.untrust_peer", "value", peer, NULL);
}

int
omerta_trusted_peers(struct omerta *o, struct omerta_body **list)
{
	return omerta_call(o, "config.trusted_peers", NULL, list);
}

int
omerta_block(struct omerta *o, const char *peer)
{
	return verb_str(o, "config.block", "value", peer, NULL);
}

int
omerta_unblock(struct omerta *o, const char *peer)
{
	return verb_str(o, "config.unblock", "value", peer, NULL);
}

int
omerta_blocked(struct omerta *o, struct omerta_body **list)
{
	return omerta_call(o, "config.blocked", NULL, list);
}

int
omerta_rules(struct omerta *o, struct omerta_body **table)
{
	return omerta_call(o, "rules.list", NULL, table);
}

int
omerta_rule_add(struct omerta *o, const struct omerta_body *rule)
{
	return omerta_call(o, "rules.add", rule, NULL);
}

int
omerta_rule_change(struct omerta *o, const struct omerta_body *rule)
{
	return omerta_call(o, "rules.change", rule, NULL);
}

int
omerta_rule_remove(struct omerta *o, const char *name)
{
	return verb_str(o, "rules.remove", "name", name, NULL);
}

int
omerta_rule_enable(struct omerta *o, const char *name, bool enabled)
{
	return verb_str(o, enabled ? "rules.enable" : "rules.disable", "name", name, NULL);
}

int
omerta_rules_test(struct omerta *o, const struct omerta_body *request,
		  struct omerta_body **decision)
{
	return omerta_call(o, "rules.test", request, decision);
}

int
omerta_filter_stats(struct omerta *o, struct omerta_body **stats)
{
	return omerta_call(o, "filter.stats", NULL, stats);
}

int
omerta_filter_reset(struct omerta *o)
{
	return omerta_call(o, "filter.reset", NULL, NULL);
}

int
omerta_audit(struct omerta *o, const struct omerta_body *query, struct omerta_body **table)
{
	return omerta_call(o, "audit.list", query, table);
}

int
omerta_audit_verify(struct omerta *o, struct omerta_body **report)
{
	return omerta_call(o, "audit.verify", NULL, report);
}

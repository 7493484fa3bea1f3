/* SPDX-License-Identifier: ISC */
/* What the ledger tells a monitoring system, and the provider's books. */
#include <inttypes.h>
#include <stdio.h>
#include "actors/ledger_impl.h"
#include "store/ran.h"

/* Edges of the commits' histogram in microseconds: a disk's cache, a flash, a disk, trouble. */
static const uint64_t edges_us[LEDGER_COMMIT_EDGES] = { 100,    250,    500,     1000,
							2500,   5000,   10000,   25000,
							100000, 500000, 2500000, UINT64_MAX };

void
ledger_count_commit(struct ledger *l, enum om_err err, int64_t took_ns)
{
	const uint64_t us = took_ns > 0 ? (uint64_t)took_ns / 1000 : 0;
	size_t i = 0;

	if (err != OM_OK) {
		l->commits_refused++;
		return;
	}
	while (us > edges_us[i]) {
		i++;
	}
	l->commit_le[i]++;
	l->commits++;
	l->commit_us += us;
}

void
ledger_count_moves(struct ledger *l, const uint64_t moves[OM_JOB_STATES])
{
	for (unsigned i = 0; i < OM_JOB_STATES; i++) {
		l->moves[i] += moves[i];
	}
}

static struct om_str
number(struct ledger *l, uint64_t n)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%" PRIu64, n);
	return ledger_keep(l, text);
}

enum om_err
ledger_on_stats(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	struct om_ledger_stats *out = om_arena_alloc(&l->arena, sizeof(*out));
	struct om_pair *le = om_arena_alloc(&l->arena, LEDGER_COMMIT_EDGES * sizeof(*le));
	struct om_pair *moves = om_arena_alloc(&l->arena, OM_JOB_STATES * sizeof(*moves));
	struct om_store_stat st;
	uint64_t below = 0;
	enum om_err err;

	if (out == NULL || le == NULL || moves == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_store_stat(l->store, &st);
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	*out = (struct om_ledger_stats){ .used_bytes = st.used_bytes,
					 .free_bytes = st.free_bytes,
					 .wal_bytes = st.wal_bytes,
					 .jobs = st.jobs,
					 .audit_rows = st.audit_rows,
					 .refused = l->commits_refused,
					 .commits = l->commits,
					 .commit_us = l->commit_us };
	for (size_t i = 0; i + 1 < LEDGER_COMMIT_EDGES; i++) { /* beyond the last: commits */
		below += l->commit_le[i];
		le[i] = (struct om_pair){ number(l, edges_us[i]), number(l, below) };
	}
	OM_SET(out, ledger_stats, commit_le, ((struct om_pairs){ le, LEDGER_COMMIT_EDGES - 1 }));
	for (unsigned i = 0; i < OM_JOB_STATES; i++) {
		moves[i] =
		    (struct om_pair){ om_str_of(om_job_state_text(i)), number(l, l->moves[i]) };
	}
	OM_SET(out, ledger_stats, moves, ((struct om_pairs){ moves, OM_JOB_STATES }));
	return ledger_answer_read(sv, l, in, OM_MSG_LEDGER_STATE, out);
}

/* --- run times -------------------------------------------------------------------------------- */

enum om_err
ledger_on_ran(struct om_service *sv, void *state, const struct om_in *in)
{
	struct ledger *l = ledger_of(state);
	const struct om_ledger_ran_query *m = in->body;
	struct om_ledger_ran_table *table = om_arena_alloc(&l->arena, sizeof(*table));
	struct om_store_ran *rows = om_arena_alloc(&l->arena, OM_LEDGER_RAN_PAGE * sizeof(*rows));
	struct om_ran *peers = om_arena_alloc(&l->arena, OM_LEDGER_RAN_PAGE * sizeof(*peers));
	size_t count = 0;
	enum om_err err;

	if (table == NULL || rows == NULL || peers == NULL) {
		return OM_ERR_NOMEM;
	}
	err = om_store_ran_since(l->store, ledger_wall(m->since_ms), m->after, rows,
				 OM_LEDGER_RAN_PAGE, &count);
	if (err != OM_OK) {
		return ledger_refuse(sv, l, in, err);
	}
	for (size_t i = 0; i < count; i++) {
		peers[i] =
		    (struct om_ran){ .peer = om_str_of(rows[i].requester), .ms = rows[i].ms };
	}
	*table = (struct om_ledger_ran_table){
		.peers = { peers, count },
		.at_ms = (uint64_t)(ledger_now(l).ns / OM_NS_PER_MS),
	};
	return ledger_answer_read(sv, l, in, OM_MSG_LEDGER_RAN_TABLE, table);
}

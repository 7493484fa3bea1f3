/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_FAKE_DISK_H
#define OM_TESTS_ACTORS_FAKE_DISK_H

/* What the played ledger of actors_fake.h has written: it outlives the system. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "actors/activity_logger.h"
#include "actors/filter_manager.h"
#include "actors/job_queue.h"
#include "actors/names.h"
#include "actors/provider.h"
#include "base/id.h"
#include "base/log.h"
#include "msg/codec.h"
#include "store/job_state.h"

#define FAKE_JOBS    320
#define FAKE_ITEMS   16
#define FAKE_EVENTS  1024
#define FAKE_ANSWERS 64
#define FAKE_NOW     INT64_C(1700049600) /* 2023-11-15 12:00 UTC */

struct fake_row {
	char id[65], peer[65], network[65], level[17], reason[33], text[513];
	enum om_job_state state;
	uint64_t cores, mem_mib, runtime_s, expires_ms, wall_ms, finished_ms, started_ms,
	    submitted_ms;
	uint64_t not_before_ms, attempts, attempts_max, backoff_s;
	bool held, after_any, requeue;
	int64_t rank;
	char after[4][65];
	size_t after_count;
	struct om_buf spec;
};

struct fake_ran {
	char peer[65];
	uint64_t ms;
	int64_t at_ns;
};

struct fake_item {
	char list[25], key[65];
	struct om_buf value;
};

/* What the ledger has written: outlives the system. */
struct fake_disk {
	struct fake_row rows[FAKE_JOBS];
	size_t row_count;
	struct fake_ran ran[FAKE_JOBS];
	size_t ran_count;
	struct fake_item items[FAKE_ITEMS];
	size_t item_count;
	char trail[FAKE_EVENTS][96]; /* "job from->to" in the order of writing */
	size_t trail_count;
	uint64_t trail_after; /* the last audit.list asked from there */
	enum om_err fail; /* not OM_OK: every write fails so */
	int64_t moves;
	size_t asked; /* questions about one job that were answered */
	bool late; /* writes, and answers to nobody */
	size_t questions, together; /* with new jobs; most of them in one */
	enum om_err many_fail; /* so does a commit of many */
	bool lists_fail; /* the filter's cannot be read */
};

static struct fake_disk disk;
static struct om_wall fake_now = { FAKE_NOW * OM_NS_PER_S };

static struct om_wall
fake_wall(void)
{
	return fake_now;
}

static void
fake_copy(struct om_str s, char *out, size_t size)
{
	assert_int_equal(om_str_copy(s, out, size), OM_OK);
}

/* --- ledger ----------------------------------------------------------------------------------- */

static struct fake_row *
fake_row(const char *id)
{
	for (size_t i = 0; i < disk.row_count; i++) {
		if (strcmp(disk.rows[i].id, id) == 0) {
			return &disk.rows[i];
		}
	}
	return NULL;
}

static void
fake_info(const struct fake_row *row, struct om_job_info *out)
{
	*out = (struct om_job_info){ .job = om_str_of(row->id),
				     .state = om_str_of(om_job_state_text(row->state)) };
	OM_SET(out, job_info, reason, om_str_of(row->reason));
	OM_SET(out, job_info, text, om_str_of(row->text));
	OM_SET(out, job_info, peer, om_str_of(row->peer));
	OM_SET(out, job_info, network_id, om_str_of(row->network));
	OM_SET(out, job_info, level, om_str_of(row->level));
	OM_SET(out, job_info, cores, row->cores);
	OM_SET(out, job_info, mem_mib, row->mem_mib);
	OM_SET(out, job_info, runtime_s, row->runtime_s);
	OM_SET(out, job_info, expires_ms, row->expires_ms);
	OM_SET(out, job_info, wall_ms, row->wall_ms);
	OM_SET(out, job_info, finished_ms, row->finished_ms);
	OM_SET(out, job_info, started_ms, row->started_ms);
	OM_SET(out, job_info, submitted_ms, row->submitted_ms);
	OM_SET(out, job_info, attempt, row->attempts);
	OM_SET(out, job_info, after_count, row->after_count);
	OM_SET(out, job_info, not_before_ms, row->not_before_ms);
	OM_SET(out, job_info, held, row->held);
	OM_SET(out, job_info, rank, row->rank);
}

static void
fake_tell(struct om_service *sv, const struct fake_row *row, const char *from, bool retry)
{
	struct om_job_event event = { .job = om_str_of(row->id),
				      .state = om_str_of(om_job_state_text(row->state)),
				      .at_ms = (uint64_t)(fake_now.ns / OM_NS_PER_MS) };
	struct om_job_info info;
	enum om_err err;

	assert_true(disk.trail_count < FAKE_EVENTS);
	(void)snprintf(disk.trail[disk.trail_count++], sizeof(disk.trail[0]), "%.40s %s->%s",
		       row->id, from, om_job_state_text(row->state));
	fake_info(row, &info);
	OM_SET(&event, job_event, from, om_str_of(from));
	OM_SET(&event, job_event, peer, om_str_of(row->peer));
	OM_SET(&event, job_event, final, om_job_is_final(row->state) && !retry);
	OM_SET(&event, job_event, retry, retry);
	OM_SET(&event, job_event, info, &info);
	err = om_service_send(sv, OM_PROVIDER, OM_MSG_JOB_EVENT, &event);
	assert_true(err == OM_OK || err == OM_ERR_NOT_FOUND || err == OM_ERR_GONE);
}

/* The answer to a write or a question, unless the ledger is late with it. */
static enum om_err
fake_reply(struct om_service *sv, const struct om_in *in, enum om_msg_type type, const void *body)
{
	if (disk.late) {
		(void)om_service_later(sv, in);
		return OM_OK;
	}
	return om_service_reply(sv, in, type, body);
}

#endif /* OM_TESTS_ACTORS_FAKE_DISK_H */

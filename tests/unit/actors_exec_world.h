/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_EXEC_WORLD_H
#define OM_TESTS_ACTORS_EXEC_WORLD_H

/* The world of the executor's tests: fakes of ledger and queue, and the guest that a test plays. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>
#include "actors/executor.h"
#include "actors/names.h"
#include "base/assert.h"
#include "msg/codec.h"
#include "tests/unit/actors_exec_guest.h"
#include "vm/driver_mem.h"

#define JOB    "job1"
#define WAIT_S 20 /* a test that waits longer has failed */

enum cmd {
	CMD_START = 100,
	CMD_CANCEL,
	CMD_CANCEL_NOW, /* no grace */
	CMD_CANCEL_PLAIN, /* says nothing of a grace */
	CMD_ROGUE,
	CMD_DRAIN,
	CMD_KILL_EXECUTOR,
	CMD_PAUSE,
	CMD_GO_ON,
};

/* A call of the driver that does not come back before the test lets it. */
struct held {
	enum om_vm_mem_op op;
	sem_t begun, go;
	bool armed; /* under the lock; the next such call is held */
};

struct world {
	char dir[64];
	struct om_system *sys;
	struct om_bus *bus;
	struct om_vm_driver driver;
	struct om_vm_image image;
	struct om_executor_conf conf;
	struct om_service_arg ledger, queue, executor, vpn, rogue;
	struct om_actor_id queue_id, executor_id;
	struct exec_guest guest;
	uint64_t refused, unseen; /* the counters of its walls and of its detector */
	enum om_err down_err, unwatch_err; /* what vpn.down and rogue.unwatch are answered with */
	unsigned all_unwatched; /* rogue.unwatch of all: one for each start of an executor */
	bool walls_unread; /* the counters were not read at the end */
	const char *recorded; /* the state that the ledger has of it; NULL: queued */
	enum om_err spec_err; /* what the ledger answers who asks for it; under the lock */
	size_t script_len; /* 0: a short one */
	struct held held;
	bool no_guest; /* the job ends before its VM could start one */
	sem_t killed_vm; /* posted by each kill of a VM */
	bool earlier_vm; /* while it is created, the end of an earlier VM of that name is told */
	uint64_t grace_ms; /* of CMD_CANCEL; 0: a minute */
	uint64_t runtime_s; /* 0: a minute */
	const char *cancel_reason; /* NULL: "because" */
	bool cancel_all; /* of all jobs: the daemon stops */
	bool stopped; /* the system, by the test */
	bool late_rogue; /* the detector finds a packet in the socket when the job is over */

	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* the fakes' books, under the lock */
	char states[256]; /* "provisioning running completed " */
	char reason[64];
	char text[256];
	int64_t exit_code;
	uint64_t signal, cpu_ms, wall_ms, dropped;
	bool truncated;
	char missing[64]; /* the file that did not come, and why */
	size_t output_bytes, output_in_final_order;
	uint64_t stored[2], file_stored; /* bytes: stdout, stderr, the file that comes */
	unsigned output_misplaced; /* pieces that are not where the one before ended */
	char done_state[32];
	unsigned dones, drained, disk_errors_left, cancels_answered, specs_refused;
	bool running, killed, paused;
	enum om_err refuse_with; /* while disk_errors_left */
};

static struct world *W; /* cmocka runs one test at a time */

static void
book(void (*fn)(void *arg), void *arg)
{
	pthread_mutex_lock(&W->lock);
	fn(arg);
	pthread_cond_broadcast(&W->changed);
	pthread_mutex_unlock(&W->lock);
}

static void
wait_for(bool (*is_so)(void))
{
	struct timespec until;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&W->lock);
	while (!is_so()) {
		int rc = pthread_cond_timedwait(&W->changed, &W->lock, &until);

		if (rc == ETIMEDOUT) {
			pthread_mutex_unlock(&W->lock);
			fail_msg("waited too long; states: %s", W->states);
		}
	}
	pthread_mutex_unlock(&W->lock);
}

static inline bool
is_done(void)
{
	return W->dones > 0;
}

static inline bool
is_running(void)
{
	return W->running;
}

static inline bool
is_drained(void)
{
	return W->drained > 0;
}

static inline bool
is_paused(void)
{
	return W->paused;
}

static inline bool
is_not_paused(void)
{
	return !W->paused;
}

static inline bool
is_cancel_answered(void)
{
	return W->cancels_answered > 0;
}

static inline bool
is_killed(void)
{
	return W->killed;
}

/* --- the fake ledger --------------------------------------------------------------------------- */

static void
book_move(void *arg)
{
	const struct om_ledger_move *m = arg;

	(void)snprintf(W->states + strlen(W->states), sizeof(W->states) - strlen(W->states),
		       "%.*s ", OM_STR_ARG(m->state));
	(void)snprintf(W->reason, sizeof(W->reason), "%.*s", OM_STR_ARG(m->reason));
	(void)snprintf(W->text, sizeof(W->text), "%.*s", OM_STR_ARG(m->text));
	if (om_str_is(m->state, "running")) {
		W->running = true;
	}
	if (OM_HAS(m, ledger_move, result)) {
		W->exit_code = OM_HAS(m->result, job_info, exit_code) ? m->result->exit_code : -1;
		W->signal = m->result->signal;
		W->cpu_ms = m->result->cpu_ms;
		W->wall_ms = m->result->wall_ms;
		W->dropped = m->result->output_dropped;
		W->truncated = m->result->output_truncated;
		if (m->result->files_missing.n > 0) {
			(void)snprintf(W->missing, sizeof(W->missing), "%.*s: %.*s",
				       OM_STR_ARG(m->result->files_missing.v[0].key),
				       OM_STR_ARG(m->result->files_missing.v[0].value));
		}
		W->output_in_final_order = W->output_bytes;
	}
}

/* As the ledger does it: what is stored already is not stored twice. */
static void
book_output(void *arg)
{
	const struct om_ledger_output *m = arg;
	const bool of_stderr = om_str_is(m->stream, "stderr");
	uint64_t *stored = m->file.ptr != NULL ? &W->file_stored : &W->stored[of_stderr];
	const uint64_t end = m->offset + m->data.len;

	if (m->file.ptr != NULL && m->offset == 0) {
		*stored = 0; /* the next file, or this one again */
	}
	W->output_misplaced += !OM_HAS(m, ledger_output, offset) || m->offset > *stored;
	if (end > *stored) {
		W->output_bytes += end - *stored;
		*stored = end;
	}
}

static bool
disk_is_full(void)
{
	bool full;

	pthread_mutex_lock(&W->lock);
	full = W->disk_errors_left > 0;
	W->disk_errors_left -= full;
	pthread_mutex_unlock(&W->lock);
	return full;
}

static inline bool
is_spec_refused(void)
{
	return W->specs_refused > 0;
}

static enum om_err
spec_error(void)
{
	enum om_err err;

	pthread_mutex_lock(&W->lock);
	err = W->spec_err;
	W->specs_refused += err != OM_OK;
	pthread_cond_broadcast(&W->changed);
	pthread_mutex_unlock(&W->lock);
	return err;
}

static enum om_err
ledger_on_spec(struct om_service *sv, void *state, const struct om_in *in)
{
	static const char script[1 << 20] = "print('hi')";
	struct om_str file = OM_STR("model.bin");
	struct om_job_info info = { 0 };
	static const char key[] = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=";
	struct om_str address = OM_STR("10.99.0.2/32"), allowed = OM_STR("10.99.0.0/24");
	struct om_vpn_config vpn = { .private_key = OM_STR(key),
				     .peer_public_key = OM_STR(key),
				     .endpoint = OM_STR("192.0.2.1:1"),
				     .addresses = { &address, 1 },
				     .allowed_ips = { &allowed, 1 } };
	struct om_job_submit submit = { 0 };
	struct om_ledger_spec spec = { 0 };
	struct om_buf raw = { 0 };
	enum om_err err = spec_error();

	(void)state;
	if (err != OM_OK) {
		return err;
	}
	OM_SET(&submit, job_submit, lang, OM_STR("python"));
	OM_SET(&submit, job_submit, script,
	       ((struct om_bin){ (const uint8_t *)script,
				 W->script_len != 0 ? W->script_len : strlen(script) }));
	OM_SET(&submit, job_submit, network, W->guest.tunnel ? OM_STR("tunnel") : OM_STR("none"));
	if (W->guest.tunnel) {
		OM_SET(&submit, job_submit, vpn, &vpn);
	}
	if (W->guest.play == PLAY_FULL) {
		OM_SET(&submit, job_submit, output_max, 10000);
	}
	if (W->guest.play == PLAY_NO_FILE) {
		OM_SET(&submit, job_submit, outputs, ((struct om_strs){ &file, 1 }));
	}
	OM_SET(&submit, job_submit, runtime_s, W->runtime_s != 0 ? W->runtime_s : 60);
	err = om_body_encode(OM_BODY_job_submit, &submit, &raw);
	OM_SET(&spec, ledger_spec, job, OM_STR(JOB));
	OM_SET(&spec, ledger_spec, spec, ((struct om_bin){ raw.data, raw.len }));
	OM_SET(&info, job_info, job, OM_STR(JOB));
	OM_SET(&info, job_info, state, om_str_of(W->recorded != NULL ? W->recorded : "queued"));
	OM_SET(&spec, ledger_spec, info, &info);
	if (err == OM_OK) {
		err = om_service_reply(sv, in, OM_MSG_LEDGER_SPEC, &spec);
	}
	om_buf_fini(&raw);
	return err;
}

static enum om_err
ledger_on_move(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_job_info info = { 0 };

	(void)state;
	if (disk_is_full()) {
		return om_service_reply_err(sv, in, W->refuse_with, "no room");
	}
	book(book_move, (void *)(uintptr_t)in->body);
	OM_SET(&info, job_info, job, OM_STR(JOB));
	OM_SET(&info, job_info, state, OM_STR("x"));
	return in->wants_answer ? om_service_reply(sv, in, OM_MSG_JOB_INFO, &info) : OM_OK;
}

static enum om_err
ledger_on_output(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_ledger_output m = *(const struct om_ledger_output *)in->body;

	(void)state;
	if (disk_is_full()) {
		return om_service_reply_err(sv, in, W->refuse_with, "no room");
	}
	book(book_output, &m);
	return om_service_reply_ok(sv, in);
}

static void
book_place(void *arg)
{
	const struct om_ledger_place *m = arg;

	W->paused = m->paused;
}

static enum om_err
ledger_on_place(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_job_info info = { 0 };

	(void)state;
	book(book_place, (void *)(uintptr_t)in->body);
	OM_SET(&info, job_info, job, OM_STR(JOB));
	OM_SET(&info, job_info, state, OM_STR("x"));
	return om_service_reply(sv, in, OM_MSG_JOB_INFO, &info);
}

static const struct om_service_handler ledger_handlers[] = {
	{ OM_MSG_LEDGER_PLACE, ledger_on_place },
	{ OM_MSG_LEDGER_SPEC_GET, ledger_on_spec },
	{ OM_MSG_LEDGER_MOVE, ledger_on_move },
	{ OM_MSG_LEDGER_OUTPUT, ledger_on_output },
};
static const struct om_service_def fake_ledger = {
	.name = OM_LEDGER,
	.on = ledger_handlers,
	.on_count = OM_COUNT(ledger_handlers),
};

/* --- the fake queue, which is also the test's hand ---------------------------------------------- */

static void
book_done(void *arg)
{
	const struct om_exec_done *m = arg;

	(void)snprintf(W->done_state, sizeof(W->done_state), "%.*s", OM_STR_ARG(m->state));
	W->dones++;
}

static void
book_drained(void *arg)
{
	(void)arg;
	W->drained++;
}

static void
book_cancelled(void *arg)
{
	(void)arg;
	W->cancels_answered++;
}

static void
book_killed(void *arg)
{
	(void)arg;
	W->killed = true;
}

static enum om_err
queue_on_done(struct om_service *sv, void *state, const struct om_in *in)
{
	(void)sv;
	(void)state;
	book(book_done, (void *)(uintptr_t)in->body);
	return OM_OK;
}

static void
on_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	(void)sv;
	(void)state;
	OM_ASSERT(answer->err == OM_OK);
	if (answer->cookie == CMD_DRAIN) {
		book(book_drained, NULL);
	} else if (answer->cookie == CMD_CANCEL) {
		book(book_cancelled, NULL);
	}
}

static enum om_err
queue_on_msg(struct om_service *sv, void *state, const struct om_msg *msg)
{
	struct om_exec_start start = { 0 };
	struct om_queue_cancel cancel = { 0 };
	struct om_exec_pause pause = { 0 };
	struct om_rogue_caught rogue = { 0 };
	struct om_pair evidence[] = { { OM_STR("protocol"), OM_STR("tcp") } };
	struct om_empty empty = { 0 };

	(void)state;
	switch (msg->type) {
	case CMD_START:
		OM_SET(&start, exec_start, job, OM_STR(JOB));
		OM_SET(&start, exec_start, cores, 1);
		OM_SET(&start, exec_start, mem_mib, 512);
		return om_service_ask(sv, OM_EXECUTOR, OM_MSG_EXEC_START, &start, NULL, 5000,
				      on_answer, CMD_START);
	case CMD_CANCEL:
	case CMD_CANCEL_NOW:
	case CMD_CANCEL_PLAIN:
		OM_SET(&cancel, queue_cancel, job, W->cancel_all ? OM_STR("*") : OM_STR(JOB));
		if (msg->type != CMD_CANCEL_PLAIN) {
			OM_SET(&cancel, queue_cancel, grace_ms,
			       msg->type == CMD_CANCEL_NOW ? 0
			       : W->grace_ms != 0          ? W->grace_ms
							   : 60000);
		}
		OM_SET(&cancel, queue_cancel, reason,
		       om_str_of(W->cancel_reason != NULL ? W->cancel_reason : "because"));
		return om_service_ask(sv, OM_EXECUTOR, OM_MSG_EXEC_CANCEL, &cancel, NULL, 5000,
				      on_answer, CMD_CANCEL);
	case CMD_ROGUE:
		OM_SET(&rogue, rogue_caught, job, OM_STR(JOB));
		OM_SET(&rogue, rogue_caught, state, OM_STR("rogue_killed"));
		OM_SET(&rogue, rogue_caught, reason, OM_STR("rogue_packet"));
		OM_SET(&rogue, rogue_caught, text, OM_STR("tcp 1.2.3.4:5 refused"));
		OM_SET(&rogue, rogue_caught, evidence, ((struct om_pairs){ evidence, 1 }));
		return om_service_send(sv, OM_EXECUTOR, OM_MSG_ROGUE_CAUGHT, &rogue);
	case CMD_PAUSE:
	case CMD_GO_ON:
		OM_SET(&pause, exec_pause, job, OM_STR(JOB));
		OM_SET(&pause, exec_pause, on, msg->type == CMD_PAUSE);
		OM_SET(&pause, exec_pause, text, OM_STR("quiet hours"));
		return om_service_ask(sv, OM_EXECUTOR, OM_MSG_EXEC_PAUSE, &pause, NULL, 5000,
				      on_answer, CMD_PAUSE);
	case CMD_KILL_EXECUTOR:
		om_kill(om_service_cx(sv), W->executor_id);
		book(book_killed, NULL);
		return OM_OK;
	case CMD_DRAIN:
		return om_service_ask(sv, OM_EXECUTOR, OM_MSG_EXEC_DRAIN, &empty, NULL, 60000,
				      on_answer, CMD_DRAIN);
	default:
		return OM_ERR_UNKNOWN_TYPE;
	}
}

static const struct om_service_handler queue_handlers[] = {
	{ OM_MSG_EXEC_DONE, queue_on_done },
};
static const struct om_service_def fake_queue = {
	.name = OM_JOB_QUEUE,
	.on = queue_handlers,
	.on_count = OM_COUNT(queue_handlers),
	.on_msg = queue_on_msg,
};

/* --- the job's network --------------------------------------------------------------------------- */

static enum om_err
vpn_on_up(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_str address = OM_STR("10.99.0.2/32");
	struct om_vpn_ready m = { .job = OM_STR(JOB),
				  .tap = OM_STR("omt0"),
				  .mac = OM_STR("02:00:00:00:00:01"),
				  .netns = OM_STR("net:[1]"),
				  .guest_addresses = { &address, 1 },
				  .mtu = 1420 };

	(void)state;
	OM_SET(&m, vpn_ready, gateway, OM_STR("169.254.1.1"));
	return om_service_reply(sv, in, OM_MSG_VPN_READY, &m);
}

static enum om_err
net_on_ok(struct om_service *sv, void *state, const struct om_in *in)
{
	(void)state;
	return om_service_reply_ok(sv, in);
}

static enum om_err
vpn_on_down(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_vpn_stats m = { .job = OM_STR(JOB), .rx_bytes = 1, .tx_bytes = 2 };

	(void)state;
	if (W->down_err != OM_OK) {
		return W->down_err;
	}
	if (!W->walls_unread) {
		OM_SET(&m, vpn_stats, refused, W->refused);
	}
	return om_service_reply(sv, in, OM_MSG_VPN_STATS, &m);
}

static enum om_err
rogue_on_unwatch(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_rogue_unwatch *m = in->body;
	struct om_rogue_counted answer = { .job = OM_STR(JOB), .unseen = W->unseen };
	struct om_rogue_caught rogue = { .job = OM_STR(JOB),
					 .state = OM_STR("rogue_killed"),
					 .reason = OM_STR("rogue_packet"),
					 .text = OM_STR("late") };

	(void)state;
	if (om_str_is(m->job, "*")) {
		W->all_unwatched++;
		return om_service_reply(sv, in, OM_MSG_ROGUE_COUNTED, &answer);
	}
	if (W->down_err != OM_OK || W->walls_unread) {
		OM_ASSERT(!OM_HAS(m, rogue_unwatch, refused));
	} else {
		OM_ASSERT(OM_HAS(m, rogue_unwatch, refused) && m->refused == W->refused);
	}
	if (W->unwatch_err != OM_OK) {
		return W->unwatch_err;
	}
	if (W->late_rogue) {
		OM_ASSERT(om_service_send(sv, OM_EXECUTOR, OM_MSG_ROGUE_CAUGHT, &rogue) == OM_OK);
	}
	return om_service_reply(sv, in, OM_MSG_ROGUE_COUNTED, &answer);
}

static const struct om_service_handler vpn_handlers[] = {
	{ OM_MSG_VPN_UP, vpn_on_up },
	{ OM_MSG_VPN_ATTACH, net_on_ok },
	{ OM_MSG_VPN_DOWN, vpn_on_down },
};
static const struct om_service_def fake_vpn = {
	.name = OM_VPN_MANAGER,
	.on = vpn_handlers,
	.on_count = OM_COUNT(vpn_handlers),
};
static const struct om_service_handler rogue_handlers[] = {
	{ OM_MSG_ROGUE_WATCH, net_on_ok },
	{ OM_MSG_ROGUE_UNWATCH, rogue_on_unwatch },
};
static const struct om_service_def fake_rogue = {
	.name = OM_ROGUE_CONNECTION_DETECTOR,
	.on = rogue_handlers,
	.on_count = OM_COUNT(rogue_handlers),
};

static void
tell(enum cmd cmd)
{
	struct om_msg *msg = om_system_msg_new(W->sys, cmd, 0);

	assert_non_null(msg);
	assert_int_equal(om_system_send(W->sys, W->queue_id, &msg), OM_OK);
}

/* --- the driver ---------------------------------------------------------------------------------- */

static void
hold(enum om_vm_mem_op op)
{
	pthread_mutex_lock(&W->lock);
	W->held.op = op;
	W->held.armed = true;
	pthread_mutex_unlock(&W->lock);
}

static void
wait_if_held(enum om_vm_mem_op op)
{
	bool held;

	pthread_mutex_lock(&W->lock);
	held = W->held.armed && W->held.op == op;
	W->held.armed = W->held.armed && !held;
	pthread_mutex_unlock(&W->lock);
	if (held) {
		OM_ASSERT(sem_post(&W->held.begun) == 0);
		while (sem_wait(&W->held.go) != 0) {
		}
	}
}

static void
on_driver_call(void *arg, enum om_vm_mem_op op, const char *name)
{
	char dir[80];

	(void)arg;
	wait_if_held(op);
	if (op == OM_VM_MEM_KILL) {
		OM_ASSERT(sem_post(&W->killed_vm) == 0);
	}
	if (op != OM_VM_MEM_CREATE) {
		return;
	}
	if (W->earlier_vm && !W->guest.started) {
		OM_ASSERT(om_vm_mem_add_orphan(W->driver.state, name) == OM_OK);
		OM_ASSERT(om_vm_mem_end(W->driver.state, name, OM_VM_EVENT_STOPPED, "destroyed") ==
			  OM_OK);
	}
	if (!W->guest.started && !W->no_guest) { /* the first try */
		(void)snprintf(dir, sizeof(dir), "%s/" JOB, W->dir);
		guest_start(&W->guest, dir);
	}
}

#endif /* OM_TESTS_ACTORS_EXEC_WORLD_H */

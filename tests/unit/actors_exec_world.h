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
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include "actors/executor.h"
#include "actors/names.h"
#include "base/assert.h"
#include "base/mp.h"
#include "msg/codec.h"
#include "vm/driver_mem.h"
#include "vm/guest_proto.h"

#define JOB       "job1"
#define WAIT_S    20 /* a test that waits longer has failed */
#define OUT_BYTES 300000

/* What the guest does once the job is started. */
enum play {
	PLAY_EXIT_0,
	PLAY_EXIT_3,
	PLAY_SIGNAL,
	PLAY_OOM,
	PLAY_MUCH_OUTPUT,
	PLAY_RUN_UNTIL_STOPPED,
	PLAY_DEAF, /* runs on, does not obey a stop */
	PLAY_GARBAGE,
	PLAY_SILENT, /* no hello */
	PLAY_HANG_UP,
	PLAY_NEVER_STARTS, /* hello, and then nothing */
	PLAY_ENDLESS_FILES, /* it exits, and is never done */
	PLAY_FULL, /* output up to its limit, and it is killed */
	PLAY_NO_FILE, /* it exits, and its file is not there */
};

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
	struct om_actor_id queue_id, executor_id;
	enum play play;
	bool
	    tunnel; /* the job has a network, and these are its walls' and its detector's counters */
	uint64_t refused, unseen;
	enum om_err down_err, unwatch_err; /* what vpn.down and rogue.unwatch are answered with */
	unsigned all_unwatched; /* rogue.unwatch of all: one for each start of an executor */
	bool walls_unread; /* the counters were not read at the end */
	const char *recorded; /* the state that the ledger has of it; NULL: queued */
	enum om_err spec_err; /* what the ledger answers who asks for it; under the lock */
	size_t script_len; /* 0: a short one */
	sem_t *create_begun, *hold_create; /* the hypervisor does not answer before it is posted */
	struct held held;
	sem_t killed_vm; /* posted by each kill of a VM */
	bool earlier_vm; /* while it is created, the end of an earlier VM of that name is told */
	uint64_t grace_ms; /* of CMD_CANCEL; 0: one second */
	uint64_t stop_grace_ms; /* what the guest was given; the guest's until it is joined */
	const char *cancel_reason; /* NULL: "because" */
	bool cancel_all; /* of all jobs: the daemon stops */
	bool stopped; /* the system, by the test */
	bool late_rogue; /* the detector finds a packet in the socket when the job is over */
	int listen_fd;
	pthread_t guest;
	bool guest_started;

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

static bool
is_done(void)
{
	return W->dones > 0;
}

static bool
is_running(void)
{
	return W->running;
}

static bool
is_drained(void)
{
	return W->drained > 0;
}

static bool
is_paused(void)
{
	return W->paused;
}

static bool
is_not_paused(void)
{
	return !W->paused;
}

static bool
is_cancel_answered(void)
{
	return W->cancels_answered > 0;
}

static bool
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

static bool
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
	OM_SET(&submit, job_submit, network, W->tunnel ? OM_STR("tunnel") : OM_STR("none"));
	if (W->tunnel) {
		OM_SET(&submit, job_submit, vpn, &vpn);
	}
	if (W->play == PLAY_FULL) {
		OM_SET(&submit, job_submit, output_max, 10000);
	}
	if (W->play == PLAY_NO_FILE) {
		OM_SET(&submit, job_submit, outputs, ((struct om_strs){ &file, 1 }));
	}
	OM_SET(&submit, job_submit, runtime_s, W->play == PLAY_DEAF ? 1 : 60);
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
							   : 1000);
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

/* --- the guest ---------------------------------------------------------------------------------- */

static void
guest_frame(int fd, const struct om_buf *body)
{
	uint8_t head[4] = { (uint8_t)(body->len >> 24), (uint8_t)(body->len >> 16),
			    (uint8_t)(body->len >> 8), (uint8_t)body->len };
	size_t at = 0;

	(void)!send(fd, head, sizeof(head), MSG_NOSIGNAL);
	while (at < body->len) {
		ssize_t n = send(fd, body->data + at, body->len - at, MSG_NOSIGNAL);

		if (n <= 0) {
			return;
		}
		at += (size_t)n;
	}
}

static void
guest_say(int fd, unsigned type, size_t count, const uint64_t *numbers)
{
	struct om_buf b = { 0 };
	size_t i;

	om_mp_put_array(&b, count + 1);
	om_mp_put_u64(&b, type);
	for (i = 0; i < count; i++) {
		om_mp_put_u64(&b, numbers[i]);
	}
	guest_frame(fd, &b);
	om_buf_fini(&b);
}

static void
guest_hello(int fd)
{
	struct om_buf b = { 0 };

	om_mp_put_array(&b, 6);
	om_mp_put_u64(&b, OM_GUEST_HELLO);
	om_mp_put_u64(&b, OM_GUEST_VERSION);
	om_mp_put_u64(&b, 900);
	om_mp_put_u64(&b, 500000);
	om_mp_put_cstr(&b, "6.1");
	om_mp_put_array(&b, 1);
	om_mp_put_cstr(&b, "python");
	guest_frame(fd, &b);
	om_buf_fini(&b);
}

static void
guest_output(int fd, const char *data, size_t len)
{
	struct om_buf b = { 0 };

	om_mp_put_array(&b, 3);
	om_mp_put_u64(&b, OM_GUEST_OUTPUT);
	om_mp_put_u64(&b, 1);
	om_mp_put_bin(&b, (struct om_bin){ (const uint8_t *)data, len });
	guest_frame(fd, &b);
	om_buf_fini(&b);
}

/* Exit status, signal, CPU us, two peaks in KiB, dropped (2), OOM kills, refused forks, stopped. */
static void
guest_exit_only(int fd, uint64_t status, uint64_t sig, uint64_t oom, uint64_t stopped)
{
	struct om_buf b = { 0 };

	om_mp_put_array(&b, 11);
	om_mp_put_u64(&b, OM_GUEST_EXIT);
	om_mp_put_i64(&b, sig != 0 ? -1 : (int64_t)status);
	om_mp_put_u64(&b, sig);
	om_mp_put_u64(&b, UINT64_C(3600000000));
	om_mp_put_u64(&b, 9000);
	om_mp_put_u64(&b, 9000);
	om_mp_put_u64(&b, 0);
	om_mp_put_u64(&b, 0);
	om_mp_put_u64(&b, oom);
	om_mp_put_u64(&b, 0);
	om_mp_put_bool(&b, stopped != 0);
	guest_frame(fd, &b);
	om_buf_fini(&b);
}

static void
guest_exit(int fd, uint64_t status, uint64_t sig, uint64_t oom, uint64_t stopped)
{
	guest_exit_only(fd, status, sig, oom, stopped);
	guest_say(fd, OM_GUEST_DONE, 0, NULL);
}

/* Reads frames until one of this type; false when the host hung up. */
static bool
guest_hear(int fd, unsigned type)
{
	for (;;) {
		uint8_t head[4];
		uint8_t *body;
		struct om_mp mp;
		size_t len, count;
		uint64_t got = 0;

		if (recv(fd, head, 4, MSG_WAITALL) != 4) {
			return false;
		}
		len =
		    (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
		body = malloc(len);
		if (recv(fd, body, len, MSG_WAITALL) != (ssize_t)len) {
			free(body);
			return false;
		}
		om_mp_init(&mp, body, len);
		if (om_mp_array(&mp, &count) != OM_OK || om_mp_u64(&mp, &got) != OM_OK) {
			got = 0;
		}
		if (got == OM_GUEST_STOP && om_mp_u64(&mp, &W->stop_grace_ms) != OM_OK) {
			W->stop_grace_ms = UINT64_MAX;
		}
		free(body);
		if (got == type) {
			return true;
		}
	}
}

static void
guest_no_file(int fd)
{
	struct om_buf b = { 0 };

	om_mp_put_array(&b, 5);
	om_mp_put_u64(&b, OM_GUEST_FILE);
	om_mp_put_u64(&b, 0); /* the first */
	om_mp_put_u64(&b, 0);
	om_mp_put_u64(&b, 0);
	om_mp_put_cstr(&b, "No such file");
	guest_frame(fd, &b);
	om_buf_fini(&b);
}

static void
guest_play(int fd)
{
	char line[1000];
	int i;

	memset(line, 'x', sizeof(line));
	switch (W->play) {
	case PLAY_EXIT_0:
		guest_output(fd, "hi\n", 3);
		guest_exit(fd, 0, 0, 0, 0);
		break;
	case PLAY_EXIT_3:
		guest_exit(fd, 3, 0, 0, 0);
		break;
	case PLAY_SIGNAL:
		guest_exit(fd, 0, 9, 0, 0);
		break;
	case PLAY_OOM:
		guest_exit(fd, 0, 9, 1, 0);
		break;
	case PLAY_MUCH_OUTPUT:
		for (i = 0; i < OUT_BYTES / (int)sizeof(line); i++) {
			guest_output(fd, line, sizeof(line));
		}
		guest_exit(fd, 0, 0, 0, 0);
		break;
	case PLAY_RUN_UNTIL_STOPPED:
		guest_output(fd, "partial\n", 8);
		if (guest_hear(fd, OM_GUEST_STOP)) {
			guest_exit(fd, 0, 15, 0, 1);
		}
		break;
	case PLAY_DEAF:
		guest_output(fd, "partial\n", 8);
		break;
	case PLAY_GARBAGE:
		(void)!send(fd, "\xff\xff\xff\xff garbage", 12, MSG_NOSIGNAL);
		break;
	case PLAY_HANG_UP:
		guest_output(fd, "last words\n", 11);
		return;
	case PLAY_ENDLESS_FILES:
		guest_exit_only(fd, 0, 0, 0, 0);
		break;
	case PLAY_FULL:
		for (i = 0; i < 10; i++) {
			guest_output(fd, line, sizeof(line));
		}
		break;
	case PLAY_NO_FILE:
		guest_exit_only(fd, 0, 0, 0, 0);
		guest_no_file(fd);
		guest_say(fd, OM_GUEST_DONE, 0, NULL);
		break;
	case PLAY_SILENT:
	case PLAY_NEVER_STARTS:
		break;
	}
	(void)guest_hear(fd, 0xffff); /* until the host hangs up */
}

static void *
guest_main(void *arg)
{
	int fd = accept(W->listen_fd, NULL, NULL);

	(void)arg;
	if (fd < 0) {
		return NULL;
	}
	if (W->play != PLAY_SILENT) {
		guest_hello(fd);
	}
	if (W->tunnel && guest_hear(fd, OM_GUEST_NET)) {
		guest_say(fd, OM_GUEST_NET_UP, 0, NULL);
	}
	if (W->play == PLAY_SILENT || guest_hear(fd, OM_GUEST_START)) {
		if (W->play != PLAY_SILENT && W->play != PLAY_NEVER_STARTS) {
			guest_say(fd, OM_GUEST_STARTED, 0, NULL);
		}
		guest_play(fd);
	}
	(void)close(fd);
	return NULL;
}

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

/* Qemu would listen on the agent's socket before create() returns. */
static void
on_driver_call(void *arg, enum om_vm_mem_op op, const char *name)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	(void)arg;
	wait_if_held(op);
	if (op == OM_VM_MEM_KILL) {
		OM_ASSERT(sem_post(&W->killed_vm) == 0);
	}
	if (op != OM_VM_MEM_CREATE) {
		return;
	}
	if (W->earlier_vm && !W->guest_started) {
		OM_ASSERT(om_vm_mem_add_orphan(W->driver.state, name) == OM_OK);
		OM_ASSERT(om_vm_mem_end(W->driver.state, name, OM_VM_EVENT_STOPPED, "destroyed") ==
			  OM_OK);
	}
	if (W->guest_started) {
		return; /* the second try */
	}
	if (W->hold_create != NULL) {
		OM_ASSERT(sem_post(W->create_begun) == 0);
		while (sem_wait(W->hold_create) != 0) {
		}
		return;
	}
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/" JOB "/agent.sock", W->dir);
	W->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	OM_ASSERT(bind(W->listen_fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0);
	OM_ASSERT(listen(W->listen_fd, 1) == 0);
	OM_ASSERT(pthread_create(&W->guest, NULL, guest_main, NULL) == 0);
	W->guest_started = true;
}

#endif /* OM_TESTS_ACTORS_EXEC_WORLD_H */

/* SPDX-License-Identifier: ISC */
#ifndef OM_VM_GUEST_CHANNEL_H
#define OM_VM_GUEST_CHANNEL_H

/*
 * The host's end of the guest protocol: a state machine over bytes.  No threads, no file
 * descriptors, no clock; an actor that owns a nonblocking socket uses it like this:
 *
 *	readable:  n = read(fd, buf, ...);  om_guest_channel_feed(ch, buf, n);
 *		   while (om_guest_channel_next(ch, &ev)) { ... }
 *	writable:  while (om_guest_channel_output(ch, &out)) {
 *			n = write(fd, out.ptr, out.len);  om_guest_channel_sent(ch, n); }
 *
 * The guest is the enemy: frames, counts, totals and the order of messages are bounded and checked;
 * a violation is the event OM_GUEST_EV_BROKEN (OM_ERR_GUEST), after which the VM is to be killed
 * and the channel says nothing more.  Memory: one frame, plus one file out (at most files_out_max).
 *
 * All functions: owner thread.
 */
#include <stdbool.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/err.h"
#include "vm/guest_proto.h"

struct om_guest_channel;

struct om_guest_env {
	struct om_str name; /* [A-Za-z_][A-Za-z0-9_]* */
	struct om_str value;
};

struct om_guest_file_in {
	struct om_str path; /* relative to the job's directory, no ".." */
	uint32_t mode; /* permission bits, e.g. 0644 */
	struct om_bin data;
};

/* Zero in a limit means its default. */
#define OM_GUEST_OUTPUT_DEFAULT (UINT64_C(16) << 20) /* bytes, stdout and stderr together */
#define OM_GUEST_FILES_DEFAULT  (UINT64_C(16) << 20) /* bytes of all files out */
#define OM_GUEST_FILES_LIMIT    (UINT64_C(256) << 20) /* the most that files_out_max may be */
#define OM_GUEST_PROCS_DEFAULT  256 /* processes and threads of the job */
#define OM_GUEST_NOFILE_DEFAULT 1024 /* open files of one process */

struct om_guest_job {
	struct om_str interpreter; /* "python", "sh", or the name of any program in the image */
	struct om_bin script;
	const struct om_str *args;
	size_t arg_count;
	const struct om_guest_env *env;
	size_t env_count;
	struct om_bin stdin_data; /* all of it; the job reads end of file after it */
	const struct om_guest_file_in *files_in;
	size_t file_in_count;
	const struct om_str *files_out; /* relative paths that are fetched when the job has ended */
	size_t file_out_count;
	uint64_t output_max; /* bytes; what is over it is counted and dropped */
	uint64_t files_out_max; /* bytes of all files out; one that does not fit is an error text */
	uint32_t procs_max;
	uint32_t nofile_max;
};

struct om_guest_net {
	const char *address; /* "10.200.1.2/30" */
	const char *gateway; /* "10.200.1.1" */
	unsigned mtu; /* bytes; 0: the device's own */
	const char *dns[OM_GUEST_DNS_MAX]; /* NULL after the last */
};

enum om_guest_event_kind {
	OM_GUEST_EV_HELLO, /* booted; prime(), net() and start() may be called */
	OM_GUEST_EV_PRIMED, /* ready for the warm pool */
	OM_GUEST_EV_NET_UP,
	OM_GUEST_EV_STARTED,
	OM_GUEST_EV_OUTPUT,
	OM_GUEST_EV_EXITED,
	OM_GUEST_EV_FILE,
	OM_GUEST_EV_DONE, /* nothing follows: destroy the VM */
	OM_GUEST_EV_FAILED, /* the agent could not do what was asked: failed.err, failed.text */
	OM_GUEST_EV_BROKEN, /* protocol violation: failed.err is OM_ERR_GUEST, kill the VM */
};

struct om_guest_hello {
	uint64_t boot_ms; /* guest's own clock when the agent was ready */
	uint64_t mem_kib;
	struct om_str kernel;
	struct om_str langs[OM_GUEST_LANGS_MAX];
	size_t lang_count;
};

struct om_guest_exit {
	int exit_code; /* 0 to 255, or -1 when a signal ended the job */
	int signal; /* 0 when it exited by itself */
	uint64_t cpu_us; /* user and system time of the job, all its processes */
	uint64_t peak_kib; /* resident memory of the largest process */
	uint64_t group_peak_kib; /* all processes, with file cache and kernel memory */
	uint64_t dropped_out; /* bytes of stdout over the output limit, guest and host together */
	uint64_t dropped_err;
	uint64_t oom_kills; /* processes of the job that the guest killed for memory */
	uint64_t refused_forks; /* fork() that failed on the process limit */
	bool stopped; /* ended by stop() */
};

/* Views are borrowed until the next call on the channel. */
struct om_guest_event {
	enum om_guest_event_kind kind;
	union {
		struct om_guest_hello hello;
		struct {
			int stream; /* 1 stdout, 2 stderr */
			struct om_bin data;
		} output;
		struct om_guest_exit exit;
		struct {
			size_t index; /* in files_out */
			uint32_t mode;
			struct om_bin data;
			struct om_str error; /* not empty: no data, and why */
		} file;
		struct {
			enum om_err err;
			struct om_str text;
		} failed;
	};
};

struct om_guest_channel *om_guest_channel_new(void); /* NULL: no memory */
void om_guest_channel_free(struct om_guest_channel *ch);

/*
 * Bytes from the guest.  OM_ERR_TOO_BIG when the events of earlier bytes have not been taken (the
 * caller feeds at most OM_GUEST_FRAME_MAX bytes between two drains), OM_ERR_NOMEM.
 */
enum om_err om_guest_channel_feed(struct om_guest_channel *ch, const void *data,
				  size_t len) OM_MUST_CHECK;

/* Gives the next event; false when there is none until more bytes come. */
bool om_guest_channel_next(struct om_guest_channel *ch, struct om_guest_event *out);

/*
 * Bytes that wait to be written; false when there are none.  Frames of a large script or file are
 * made one by one, so ask again after sent().  Borrowed until the next call.
 */
bool om_guest_channel_output(struct om_guest_channel *ch, struct om_bin *out);
void om_guest_channel_sent(struct om_guest_channel *ch, size_t len);

/* OM_ERR_STATE before HELLO or after start(). */
enum om_err om_guest_channel_prime(struct om_guest_channel *ch) OM_MUST_CHECK;
enum om_err om_guest_channel_net(struct om_guest_channel *ch, const struct om_guest_net *net,
				 struct om_why *why) OM_MUST_CHECK;

/*
 * Once, after HELLO (also while a prime is under way).  Keeps `job` and all that it points to by
 * reference until DONE, FAILED, BROKEN or free.  OM_ERR_INVALID / OM_ERR_TOO_BIG with the reason
 * for a job that breaks a limit; nothing is sent then.
 */
enum om_err om_guest_channel_start(struct om_guest_channel *ch, const struct om_guest_job *job,
				   struct om_why *why) OM_MUST_CHECK;

/* The same checks alone, for whoever accepts jobs. */
enum om_err om_guest_job_check(const struct om_guest_job *job, struct om_why *why) OM_MUST_CHECK;

/*
 * Ends the job: SIGTERM, after grace_ms SIGKILL (0: SIGKILL at once).  EXITED follows.
 * OM_ERR_STATE unless STARTED has come and EXITED has not: destroy the VM instead.
 */
enum om_err om_guest_channel_stop(struct om_guest_channel *ch, uint32_t grace_ms) OM_MUST_CHECK;

/* Bytes of output so far: given out as events, and dropped over the limit (host's own count). */
uint64_t om_guest_channel_output_bytes(const struct om_guest_channel *ch);
uint64_t om_guest_channel_output_max(const struct om_guest_channel *ch);
uint64_t om_guest_channel_dropped_bytes(const struct om_guest_channel *ch);

#endif /* OM_VM_GUEST_CHANNEL_H */

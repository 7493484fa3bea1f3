/* SPDX-License-Identifier: ISC */
#ifndef OM_VM_GUEST_AGENT_H
#define OM_VM_GUEST_AGENT_H

/*
 * The guest agent: PID 1 of the VM, one thread, one poll loop.  Only what runs inside the guest
 * includes this file.
 *
 * The job is not trusted, the agent is: it runs as root outside the job's root directory, the job
 * as uid 1000 in a chroot without the port, the disks or the agent's processes.  When the agent
 * ends, for whatever reason, the kernel panics and the VM ends (panic=-1, no reboot).
 */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/buf.h"
#include "base/mp.h"
#include "vm/guest_proto.h"

#define GUEST_ROOT         "/root" /* the job's root directory, as the agent sees it */
#define GUEST_JOB          "/job" /* the job's working directory, as the job sees it */
#define GUEST_SCRIPT       ".script" /* in GUEST_JOB */
#define GUEST_CGROUP       "/cg/job"
#define GUEST_PRIME_CGROUP "/cg/prime" /* apart, so that it is not in the job's figures */
#define GUEST_UID          1000
#define GUEST_GID          1000

/* --- wire.c: frames over the port ------------------------------------------------------------- */

struct wire {
	int fd;
	bool connected; /* the host has been there */
	struct om_buf in;
	size_t in_at; /* bytes of `in` that are used up */
	struct om_buf out;
	size_t out_at; /* bytes of `out` that are written */
	size_t frame_at; /* where the frame being written begins */
};

void wire_init(struct wire *w, int fd);
/* Reads what is there.  False: the host has gone. */
bool wire_fill(struct wire *w);
/* 1: *frame is the next frame (borrowed until the next fill); 0: none; -1: the host broke a limit. */
int wire_next(struct wire *w, struct om_mp *frame);
/* A frame is begun with its type and the number of array elements, type included. */
void wire_begin(struct wire *w, unsigned type, size_t elements);
void wire_end(struct wire *w);
/* Writes what the port takes.  False: the host has gone. */
bool wire_flush(struct wire *w);
bool wire_pending(const struct wire *w);
/* Whether there is room for one more chunk: flow control for all that is not a short answer. */
bool wire_has_room(const struct wire *w);

/* --- boot.c ----------------------------------------------------------------------------------- */

/* Mounts, modules, root, cgroup; gives the port's fd.  Does not return on failure. */
int boot_system(void);
/* Ends the VM; the text goes to the kernel log. */
_Noreturn void boot_die(const char *what);
bool boot_write_file(const char *path, const char *text);

/* --- net.c ------------------------------------------------------------------------------------ */

/* Body of NET.  Gives an error text, NULL when the network is up. */
const char *net_configure(struct om_mp *frame);

/* --- job.c ------------------------------------------------------------------------------------ */

enum job_state {
	JOB_NONE,
	JOB_RUNNING,
	JOB_DRAINING, /* its process has ended, the rest is killed, output is read to its end */
	JOB_FILES, /* EXIT is sent, files out follow */
	JOB_DONE,
};

struct job {
	enum job_state state;
	pid_t pid;
	int in_fd, out_fd[2]; /* ours; -1: closed */
	struct om_arena text; /* argv, envp, names of files out */
	char **argv;
	char **envp;
	char **files_out;
	size_t file_out_count;
	uint64_t output_max, files_out_max, procs_max, nofile_max;
	uint64_t stdin_left; /* bytes that the host still sends */
	struct om_buf stdin_buf;
	bool stdin_eof;
	uint64_t output_bytes;
	uint64_t dropped[2];
	int wait_status;
	uint64_t peak_kib; /* of its largest process */
	bool stopped;
	int64_t kill_at_ms; /* 0: none; guest's monotonic clock */

	/* The file in or out that is under way. */
	int file_fd;
	uint64_t file_left;
	size_t file_index;
};

struct agent {
	struct wire wire;
	int signal_fd;
	struct job job;
	pid_t prime_pid; /* 0: no priming under way */
	bool was_setup;
};

int64_t agent_now_ms(void);
void agent_send_failed(struct agent *a, const char *code, const char *text);

void job_init(struct job *j);
void job_on_start(struct agent *a, struct om_mp *frame);
bool job_on_stdin(struct agent *a, struct om_mp *frame);
bool job_on_stop(struct agent *a, struct om_mp *frame);
void job_on_child(struct agent *a, pid_t pid, int status, uint64_t peak_kib);
void job_on_timer(struct agent *a);
/* The job's pipe `which` (0 stdout, 1 stderr) can be read; its stdin can be written. */
void job_on_readable(struct agent *a, int which);
void job_on_writable(struct agent *a);

/* --- spawn.c: a process as the job's user ------------------------------------------------------- */

struct guest_spawn {
	char *const *argv;
	char *const *envp;
	const char *cgroup; /* directory */
	int fds[3]; /* become 0, 1, 2 */
	uint64_t nofile_max;
};

/* Gives the pid; -1 with *error an errno value of what failed, exec included. */
pid_t guest_spawn(const struct guest_spawn *how, int *error);
/* The program that `name` stands for, NULL if the image has none.  *option is put before the script. */
const char *guest_interpreter(struct om_str name, const char **option, char *path, size_t size);
size_t guest_languages(const char **names, size_t max);

/* --- files.c ---------------------------------------------------------------------------------- */

bool files_on_put(struct agent *a, struct om_mp *frame);
bool files_on_data(struct agent *a, struct om_mp *frame);
/* Sends files out while there is room; moves the job to JOB_DONE at the end. */
void files_pump(struct agent *a);

#endif /* OM_VM_GUEST_AGENT_H */

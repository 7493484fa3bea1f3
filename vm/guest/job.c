/* SPDX-License-Identifier: ISC */
/*
 * The one job of this VM: start, output, end.
 *
 * 1. All processes of the job are in GUEST_CGROUP from before their first instruction, so that
 *    limits, CPU time and the final kill cover those that left its session too.
 * 2. EXIT is sent when the job's first process has ended, the others are killed and both pipes
 *    are at end of file: it follows all output.
 * 3. Every byte read from the pipes is sent or counted in dropped[].
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/parse.h"
#include "vm/guest/agent.h"

/*
 * Memory that the job cannot take: this, and a sixteenth of all.  With less the guest as a whole runs
 * short before the job's cgroup does, and throws out and reads back programs for a long time before
 * it kills anything.
 */
#define JOB_RESERVE_KIB  32768
#define JOB_RESERVE_PART 16

static const char *const job_default_env[] = {
	"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
	"HOME=" GUEST_JOB,
	"PWD=" GUEST_JOB,
	"USER=job",
	"LANG=C.UTF-8",
	"TERM=dumb",
	"SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
};

void
job_init(struct job *j)
{
	memset(j, 0, sizeof(*j));
	j->in_fd = j->out_fd[0] = j->out_fd[1] = j->file_fd = -1;
	j->text.max = 2 * (size_t)OM_GUEST_FRAME_MAX;
}

static void
job_close(int *fd)
{
	if (*fd >= 0) {
		close(*fd);
		*fd = -1;
	}
}

/* --- the START frame ---------------------------------------------------------------------------- */

static char *
job_text(struct job *j, struct om_str s)
{
	char *copy = om_arena_str(&j->text, s);

	if (copy == NULL) {
		boot_die("START does not fit");
	}
	return copy;
}

static char **
job_vector(struct job *j, size_t count)
{
	char **v = om_arena_alloc(&j->text, (count + 1) * sizeof(*v));

	if (v == NULL) {
		boot_die("START does not fit");
	}
	return v;
}

/* argv is program [option] script arguments. */
static bool
job_read_args(struct job *j, struct om_mp *frame, const char *program, const char *option)
{
	size_t count, n = 0;
	struct om_str s;

	if (om_mp_array(frame, &count) != OM_OK || count > OM_GUEST_ARGS_MAX) {
		return false;
	}
	j->argv = job_vector(j, count + 3);
	j->argv[n++] = job_text(j, om_str_of(program));
	if (option != NULL) {
		j->argv[n++] = job_text(j, om_str_of(option));
	}
	if (strcmp(program, GUEST_JOB "/" GUEST_SCRIPT) != 0) {
		j->argv[n++] = job_text(j, om_str_of(GUEST_JOB "/" GUEST_SCRIPT));
	}
	for (size_t i = 0; i < count; i++) {
		if (om_mp_str(frame, &s) != OM_OK) {
			return false;
		}
		j->argv[n++] = job_text(j, s);
	}
	return true;
}

/* A later variable of the same name replaces an earlier one, the defaults included. */
static void
job_set_env(struct job *j, size_t *count, char *entry)
{
	size_t name = strcspn(entry, "=") + 1;

	for (size_t i = 0; i < *count; i++) {
		if (strncmp(j->envp[i], entry, name) == 0) {
			j->envp[i] = entry;
			return;
		}
	}
	j->envp[(*count)++] = entry;
}

static bool
job_read_env(struct job *j, struct om_mp *frame)
{
	size_t count, n = 0;

	if (om_mp_array(frame, &count) != OM_OK || count > OM_GUEST_ENV_MAX) {
		return false;
	}
	j->envp = job_vector(j, count + OM_COUNT(job_default_env));
	for (size_t i = 0; i < OM_COUNT(job_default_env); i++) {
		job_set_env(j, &n, job_text(j, om_str_of(job_default_env[i])));
	}
	for (size_t i = 0; i < count; i++) {
		struct om_str name, value;
		size_t two, size;
		char *entry;

		if (om_mp_array(frame, &two) != OM_OK || two != 2 ||
		    om_mp_str(frame, &name) != OM_OK || om_mp_str(frame, &value) != OM_OK) {
			return false;
		}
		size = name.len + value.len + 2;
		entry = om_arena_alloc(&j->text, size);
		if (entry == NULL) {
			return false;
		}
		snprintf(entry, size, "%.*s=%.*s", OM_STR_ARG(name), OM_STR_ARG(value));
		job_set_env(j, &n, entry);
	}
	return true;
}

static bool
job_read_rest(struct job *j, struct om_mp *frame)
{
	uint64_t limit[OM_GUEST_LIMIT_COUNT];
	size_t count;

	if (om_mp_array(frame, &j->file_out_count) != OM_OK ||
	    j->file_out_count > OM_GUEST_FILES_MAX) {
		return false;
	}
	j->files_out = job_vector(j, j->file_out_count);
	for (size_t i = 0; i < j->file_out_count; i++) {
		struct om_str s;

		if (om_mp_str(frame, &s) != OM_OK) {
			return false;
		}
		j->files_out[i] = job_text(j, s);
	}
	if (om_mp_array(frame, &count) != OM_OK || count != OM_GUEST_LIMIT_COUNT) {
		return false;
	}
	for (size_t i = 0; i < count; i++) {
		if (om_mp_u64(frame, &limit[i]) != OM_OK) {
			return false;
		}
	}
	j->output_max = limit[0];
	j->files_out_max = limit[1];
	j->procs_max = limit[2];
	j->nofile_max = limit[3];
	j->stdin_left = limit[4];
	return om_mp_done(frame);
}

/* --- start -------------------------------------------------------------------------------------- */

static uint64_t
job_cgroup_number(const char *file, const char *key)
{
	char path[128], text[512], *at = text;

	snprintf(path, sizeof(path), GUEST_CGROUP "/%s", file);
	(void)om_file_head(AT_FDCWD, path, text, sizeof(text));
	if (key[0] != '\0') {
		at = strstr(text, key);
		at = at != NULL ? at + strlen(key) : text + strlen(text);
	}
	return strtoull(at, NULL, 10);
}

static bool
job_set_limits(const struct job *j)
{
	char text[32], line[128] = "";
	uint64_t total_kib = 0;
	FILE *meminfo = fopen("/proc/meminfo", "re");

	if (meminfo != NULL) {
		if (fgets(line, sizeof(line), meminfo) != NULL) {
			total_kib = strtoull(line + strcspn(line, " "), NULL, 10);
		}
		fclose(meminfo);
	}
	if (total_kib / 2 <= JOB_RESERVE_KIB) {
		return false;
	}
	snprintf(text, sizeof(text), "%llu",
		 (unsigned long long)(total_kib - JOB_RESERVE_KIB - total_kib / JOB_RESERVE_PART)
		     << 10);
	if (!boot_write_file(GUEST_CGROUP "/memory.max", text)) {
		return false;
	}
	snprintf(text, sizeof(text), "%llu", (unsigned long long)j->procs_max);
	return boot_write_file(GUEST_CGROUP "/pids.max", text);
}

static void
job_spawn(struct agent *a)
{
	struct job *j = &a->job;
	int fds[3][2] = { { -1, -1 }, { -1, -1 }, { -1, -1 } };
	struct guest_spawn how = { .argv = j->argv,
				   .envp = j->envp,
				   .cgroup = GUEST_CGROUP,
				   .nofile_max = j->nofile_max };
	int error;

	for (int i = 0; i < 3; i++) {
		if (pipe2(fds[i], O_CLOEXEC) < 0) {
			boot_die("pipe");
		}
		how.fds[i] = fds[i][i == 0 ? 0 : 1];
	}
	j->pid = guest_spawn(&how, &error);
	for (int i = 0; i < 3; i++) {
		close(how.fds[i]);
	}
	j->in_fd = fds[0][1];
	j->out_fd[0] = fds[1][0];
	j->out_fd[1] = fds[2][0];
	if (j->pid < 0) {
		agent_send_failed(a, error == ENOEXEC ? "invalid" : "guest", strerror(error));
		return;
	}
	(void)fcntl(j->in_fd, F_SETFL, O_NONBLOCK);
	(void)fcntl(j->out_fd[0], F_SETFL, O_NONBLOCK);
	(void)fcntl(j->out_fd[1], F_SETFL, O_NONBLOCK);
	j->state = JOB_RUNNING;
	wire_begin(&a->wire, OM_GUEST_STARTED, 1);
	wire_end(&a->wire);
	if (j->stdin_left == 0) {
		job_close(&j->in_fd);
	}
}

static void
job_no_interpreter(struct agent *a, struct om_str lang)
{
	const char *names[OM_GUEST_LANGS_MAX];
	size_t count = guest_languages(names, OM_COUNT(names));
	char text[OM_GUEST_TEXT_MAX];
	int n =
	    snprintf(text, sizeof(text), "no interpreter \"%.*s\" in the image; it has:",
		     lang.len > OM_GUEST_NAME_MAX ? OM_GUEST_NAME_MAX : (int)lang.len, lang.ptr);

	for (size_t i = 0; i < count; i++) {
		n += snprintf(text + n, sizeof(text) - (size_t)n, " %s", names[i]);
	}
	agent_send_failed(a, "unsupported", text);
}

void
job_on_start(struct agent *a, struct om_mp *frame)
{
	struct job *j = &a->job;
	const char *program, *option;
	struct om_str lang;
	char path[256];

	if (j->state != JOB_NONE || om_mp_str(frame, &lang) != OM_OK) {
		boot_die("START out of order");
	}
	program = guest_interpreter(lang, &option, path, sizeof(path));
	if (program == NULL) {
		job_no_interpreter(a, lang);
		return;
	}
	if (!job_read_args(j, frame, program, option) || !job_read_env(j, frame) ||
	    !job_read_rest(j, frame)) {
		boot_die("START");
	}
	if (a->prime_pid > 0) { /* it would only compete for the CPU now */
		(void)kill(a->prime_pid, SIGKILL);
	}
	if (!job_set_limits(j)) {
		agent_send_failed(a, "guest", "cannot set the job's limits");
		return;
	}
	job_spawn(a);
}

/* --- stdin -------------------------------------------------------------------------------------- */

static void
job_credit(struct agent *a, size_t n)
{
	wire_begin(&a->wire, OM_GUEST_CREDIT, 2);
	om_mp_put_u64(&a->wire.out, n);
	wire_end(&a->wire);
}

bool
job_on_stdin(struct agent *a, struct om_mp *frame)
{
	struct job *j = &a->job;
	struct om_bin data;

	if (om_mp_bin(frame, &data) != OM_OK ||
	    data.len > OM_GUEST_STDIN_WINDOW - j->stdin_buf.len) {
		return false;
	}
	if (data.len == 0) {
		j->stdin_eof = true;
	} else if (j->in_fd < 0) {
		job_credit(a, data.len); /* nobody reads it any more */
	} else {
		om_buf_add(&j->stdin_buf, data.ptr, data.len);
	}
	job_on_writable(a);
	return true;
}

void
job_on_writable(struct agent *a)
{
	struct job *j = &a->job;

	if (j->in_fd >= 0 && j->stdin_buf.len > 0) {
		ssize_t n = write(j->in_fd, j->stdin_buf.data, j->stdin_buf.len);

		if (n > 0) {
			om_buf_drop_front(&j->stdin_buf, (size_t)n);
			job_credit(a, (size_t)n);
		} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
			/* The job has closed its stdin: the rest goes nowhere. */
			job_credit(a, j->stdin_buf.len);
			om_buf_reset(&j->stdin_buf);
			job_close(&j->in_fd);
		}
	}
	if (j->stdin_eof && j->stdin_buf.len == 0) {
		job_close(&j->in_fd);
	}
}

/* --- output ------------------------------------------------------------------------------------- */

static void
job_finish_output(struct agent *a)
{
	struct job *j = &a->job;
	int status = j->wait_status;

	wire_begin(&a->wire, OM_GUEST_EXIT, 11);
	om_mp_put_i64(&a->wire.out, WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	om_mp_put_u64(&a->wire.out, WIFSIGNALED(status) ? (uint64_t)WTERMSIG(status) : 0);
	om_mp_put_u64(&a->wire.out, job_cgroup_number("cpu.stat", "usage_usec "));
	om_mp_put_u64(&a->wire.out, j->peak_kib);
	om_mp_put_u64(&a->wire.out, job_cgroup_number("memory.peak", "") >> 10);
	om_mp_put_u64(&a->wire.out, j->dropped[0]);
	om_mp_put_u64(&a->wire.out, j->dropped[1]);
	om_mp_put_u64(&a->wire.out, job_cgroup_number("memory.events", "oom_kill "));
	om_mp_put_u64(&a->wire.out, job_cgroup_number("pids.events", "max "));
	om_mp_put_bool(&a->wire.out, j->stopped);
	wire_end(&a->wire);
	j->state = JOB_FILES;
	files_pump(a);
}

static void
job_check_drained(struct agent *a)
{
	struct job *j = &a->job;

	if (j->state == JOB_DRAINING && j->out_fd[0] < 0 && j->out_fd[1] < 0) {
		job_finish_output(a);
	}
}

void
job_on_readable(struct agent *a, int which)
{
	static uint8_t chunk[OM_GUEST_CHUNK_MAX];
	struct job *j = &a->job;
	ssize_t n = read(j->out_fd[which], chunk, sizeof(chunk));
	size_t keep;

	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		return;
	}
	if (n <= 0) {
		job_close(&j->out_fd[which]);
		job_check_drained(a);
		return;
	}
	keep = (size_t)n;
	if (keep > j->output_max - j->output_bytes) {
		keep = (size_t)(j->output_max - j->output_bytes);
	}
	j->output_bytes += keep;
	j->dropped[which] += (size_t)n - keep;
	if (keep > 0) {
		wire_begin(&a->wire, OM_GUEST_OUTPUT, 3);
		om_mp_put_u64(&a->wire.out, (unsigned)which + 1);
		om_mp_put_bin(&a->wire.out, (struct om_bin){ chunk, keep });
		wire_end(&a->wire);
	}
}

/* --- end ---------------------------------------------------------------------------------------- */

static void
job_kill_all(void)
{
	(void)boot_write_file(GUEST_CGROUP "/cgroup.kill", "1");
}

static void
job_term_all(void)
{
	FILE *procs = fopen(GUEST_CGROUP "/cgroup.procs", "re");
	int pid;

	while (procs != NULL && fscanf(procs, "%d", &pid) == 1) {
		(void)kill(pid, SIGTERM);
	}
	if (procs != NULL) {
		fclose(procs);
	}
}

bool
job_on_stop(struct agent *a, struct om_mp *frame)
{
	struct job *j = &a->job;
	uint64_t grace_ms;

	if (om_mp_u64(frame, &grace_ms) != OM_OK) {
		return false;
	}
	if (j->state != JOB_RUNNING) {
		return true; /* it has ended meanwhile */
	}
	j->stopped = true;
	if (grace_ms == 0) {
		job_kill_all();
	} else {
		job_term_all();
		j->kill_at_ms = agent_now_ms() + (int64_t)(grace_ms & INT32_MAX);
	}
	return true;
}

void
job_on_timer(struct agent *a)
{
	a->job.kill_at_ms = 0;
	job_kill_all();
}

void
job_on_child(struct agent *a, pid_t pid, int status, uint64_t peak_kib)
{
	struct job *j = &a->job;

	if (peak_kib > j->peak_kib) {
		j->peak_kib = peak_kib;
	}
	if (j->state != JOB_RUNNING || pid != j->pid) {
		return; /* an orphan of the job: PID 1 buries it */
	}
	j->wait_status = status;
	j->state = JOB_DRAINING;
	j->kill_at_ms = 0;
	job_close(&j->in_fd);
	job_kill_all();
	job_check_drained(a);
}

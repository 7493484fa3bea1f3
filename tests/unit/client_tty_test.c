/* SPDX-License-Identifier: ISC */
/* The command line on a terminal: tables, colours, progress, --watch.  The terminal is a pty. */
#include "tests/unit/client_cli_rig.h"

#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/wait.h>
#include <termios.h>

#define SHOWN_MAX  65536
#define AS_OMERTA  "--as-omerta"
#define WORDS(...) ((char *const[]){ __VA_ARGS__, NULL })
#define W(literal) ((char *)(uintptr_t)(literal))

/* --- a terminal ------------------------------------------------------------------------------------ */

struct shown {
	char text[SHOWN_MAX];
	size_t len;
	int status;
};

/* Everything that came until the other side is closed, or until it holds `enough`. */
static void
read_terminal(int master, struct shown *s, const char *enough)
{
	struct pollfd p = { master, POLLIN, 0 };
	ssize_t n;

	while (s->len + 1 < sizeof(s->text) && poll(&p, 1, 10000) > 0) {
		n = read(master, s->text + s->len, sizeof(s->text) - 1 - s->len);
		if (n <= 0) {
			break; /* EIO: the child has closed it */
		}
		s->len += (size_t)n;
		s->text[s->len] = '\0';
		if (enough != NULL && strstr(s->text, enough) != NULL) {
			break;
		}
	}
}

static pid_t
start_on_terminal(const char *endpoint, char *const words[], int *master)
{
	struct termios raw;
	int slave;
	pid_t pid;

	assert_int_equal(openpty(master, &slave, NULL, NULL, NULL), 0);
	assert_int_equal(tcgetattr(slave, &raw), 0);
	raw.c_oflag &= (tcflag_t)~OPOST; /* \n stays \n */
	assert_int_equal(tcsetattr(slave, TCSANOW, &raw), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		char *argv[32] = { W("client_tty_test"), W(AS_OMERTA), W("-e"), W(endpoint) };
		int argc = 4;

		while (*words != NULL) {
			argv[argc++] = *words++;
		}
		(void)dup2(slave, STDOUT_FILENO);
		(void)dup2(slave, STDERR_FILENO);
		(void)execv("/proc/self/exe", argv); /* see main */
		_exit(127);
	}
	(void)close(slave);
	return pid;
}

static void
on_terminal(const char *endpoint, char *const words[], struct shown *s)
{
	int master, status = 0;
	pid_t pid = start_on_terminal(endpoint, words, &master);

	memset(s, 0, sizeof(*s));
	read_terminal(master, s, NULL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	s->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	(void)close(master);
}

/* --- what is shown --------------------------------------------------------------------------------- */

static void
give_table(struct fake *f, struct fake_request *r)
{
	struct om_job_info jobs[2] = { { .job = OM_STR("7f3a1c00d00d-chosen-by-me"),
					 .state = OM_STR("running") },
				       { .job = OM_STR("b"), .state = OM_STR("lost") } };
	struct om_job_table table = { .jobs = { jobs, 2 } };

	(void)f;
	OM_SET(&jobs[0], job_info, peer, OM_STR("\xc3\xa9l\xc3\xa9onore"));
	OM_SET(&jobs[1], job_info, peer, OM_STR("bob"));
	OM_SET(&jobs[1], job_info, activity, OM_STR("\033[31mred"));
	fake_answer(r, OM_MSG_JOB_TABLE, &table);
}

static void
test_a_table_has_columns_and_colours(void **state)
{
	static struct shown s;
	struct fake f;

	(void)state;
	fake_new(&f, give_table, NULL);
	assert_int_equal(setenv("TERM", "xterm", 1), 0);
	assert_int_equal(unsetenv("NO_COLOR"), 0);
	on_terminal(f.endpoint, WORDS(W("list")), &s);
	assert_string_equal(
	    s.text,
	    "\033[1mJOB           STATE    LEVEL  FROM      SUBMITTED  TIME  EXIT  ABOUT\033[0m\n"
	    "7f3a1c00d00d  \033[36mrunning\033[0m  -      \xc3\xa9l\xc3\xa9onore  -             -  "
	    "   "
	    "-  -\n"
	    "b             \033[31mlost\033[0m     -      bob       -             -     -  "
	    "?[31mred\n");
	on_terminal(f.endpoint, WORDS(W("list"), W("--no-headers")), &s);
	assert_null(strstr(s.text, "JOB"));
	assert_int_equal(setenv("NO_COLOR", "1", 1), 0);
	on_terminal(f.endpoint, WORDS(W("list")), &s);
	assert_null(strchr(s.text, '\033'));
	assert_int_equal(unsetenv("NO_COLOR"), 0);
	assert_int_equal(setenv("TERM", "dumb", 1), 0);
	on_terminal(f.endpoint, WORDS(W("list")), &s);
	assert_null(strchr(s.text, '\033'));
	fake_free(&f);
}

/* The second look fails, which ends --watch. */
static void
give_once(struct fake *f, struct fake_request *r)
{
	if (atomic_load(&f->seen) < 3) {
		give_table(f, r);
	} else {
		fake_error(r, OM_ERR_DENIED, "enough");
	}
}

static void
test_watch_shows_again_until_it_fails(void **state)
{
	static struct shown s;
	struct fake f;
	char *second;

	(void)state;
	fake_new(&f, give_once, NULL);
	on_terminal(f.endpoint, WORDS(W("list"), W("--watch=100ms")), &s);
	assert_memory_equal(s.text, "\033[H\033[2J", 7);
	second = strstr(s.text + 1, "\033[H\033[2J");
	assert_non_null(second);
	assert_non_null(strstr(second, "running"));
	assert_int_equal(s.status, 77);
	fake_free(&f);
}

/* --- progress -------------------------------------------------------------------------------------- */

/* Running until its state was asked for once; then it is completed. */
static void
run_until_asked(struct fake *f, struct fake_request *r)
{
	struct om_job_info info = { .job = OM_STR("7f"), .state = OM_STR("running") };
	struct om_output_data end = { .end = true };

	if (r->envelope.type == OM_MSG_JOB_OUTPUT) {
		fake_answer(r, OM_MSG_OUTPUT_DATA, &end);
	} else if (r->envelope.type == OM_MSG_JOB_GET) {
		OM_SET(&info, job_info, boot_ms, 1900);
		fake_answer(r, OM_MSG_JOB_INFO, &info);
		f->arg = f;
	} else if (f->arg != NULL) {
		info.state = OM_STR("completed");
		OM_SET(&info, job_info, exit_code, 0);
		fake_answer(r, OM_MSG_JOB_INFO, &info);
	} else {
		fake_error(r, OM_ERR_TIMEOUT, "not yet");
	}
}

static void
test_wait_shows_progress_on_one_line(void **state)
{
	static struct shown s;
	struct fake f;

	(void)state;
	assert_int_equal(setenv("NO_COLOR", "1", 1), 0);
	fake_new(&f, run_until_asked, NULL);
	on_terminal(f.endpoint, WORDS(W("wait"), W("7f")), &s);
	assert_int_equal(s.status, 0);
	assert_non_null(strstr(s.text, "\r\033[Kjob 7f  booted 1.9 s  running 0:00"));
	/* Nothing of the progress line is left in front of the summary. */
	assert_non_null(strstr(s.text, "\r\033[Kjob 7f  completed  exit 0\n"));
	fake_free(&f);
}

static void
never_end(struct fake *f, struct fake_request *r)
{
	struct om_job_info info = { .job = OM_STR("7f"), .state = OM_STR("running") };

	(void)f;
	if (r->envelope.type == OM_MSG_JOB_GET) {
		OM_SET(&info, job_info, boot_ms, 1900);
		fake_answer(r, OM_MSG_JOB_INFO, &info);
	}
}

static void
test_an_interrupt_says_that_the_job_goes_on(void **state)
{
	static struct shown s;
	struct fake f;
	int master, status = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(setenv("NO_COLOR", "1", 1), 0);
	memset(&s, 0, sizeof(s));
	fake_new(&f, never_end, NULL);
	pid = start_on_terminal(f.endpoint, WORDS(W("wait"), W("7f")), &master);
	read_terminal(master, &s, "booted 1.9 s  running 0:0");
	assert_non_null(strstr(s.text, "\r\033[Kjob 7f  booted 1.9 s  running 0:0"));
	assert_int_equal(kill(pid, SIGINT), 0);
	read_terminal(master, &s, NULL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 130);
	assert_non_null(strstr(s.text, "job 7f goes on; `omerta wait 7f` comes back to it"));
	(void)close(master);
	fake_free(&f);
}

/* A child runs this program again as omerta: after a fork of a threaded process only exec is safe. */
int
main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_table_has_columns_and_colours),
		cmocka_unit_test(test_watch_shows_again_until_it_fails),
		cmocka_unit_test(test_wait_shows_progress_on_one_line),
		cmocka_unit_test(test_an_interrupt_says_that_the_job_goes_on),
	};

	if (argc > 1 && strcmp(argv[1], AS_OMERTA) == 0) {
		return om_cli_main("omerta", argc - 1, argv + 1, NULL);
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}

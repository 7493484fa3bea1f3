/* SPDX-License-Identifier: ISC */
/*
 * private-libvirtd DIR [--if-needed] [--remove]
 *
 * A libvirtd of one's own, for machines without systemd, for the demo and for tests.  It shares
 * nothing with the system's: /etc/libvirt, /run/libvirt, /var/lib/libvirt, /var/cache/libvirt and
 * /var/log/libvirt are directories below DIR, mounted in a mount namespace of its own (a slave of
 * the host's, so that network namespaces made later are seen).  Runs in the foreground; prints
 * "ready URI" when the socket answers; ends with everything it started on SIGTERM or SIGINT, or
 * when its parent ends.  With --if-needed it prints the system's URI and ends at once when the
 * system's own libvirtd answers.  With --remove it deletes DIR and all in it at the end.
 *
 * It is a subreaper and buries at once: libvirt lets qemu become an orphan and then polls until its
 * pid is gone.  Below a PID 1 that buries slowly every destroy takes up to 2 s instead of 0.2 s.
 *
 * A libvirtd that dies is started again, and the VMs go on.  What an earlier life in DIR left behind
 * (kill -9 of this program) is killed at the start.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIBVIRTD          "/usr/sbin/libvirtd"
#define SYSTEM_SOCKET     "/run/libvirt/libvirt-sock"
#define READY_TIMEOUT_MS  30000
#define READY_STEP_MS     20
#define STOP_TIMEOUT_MS   5000
#define RESTARTS_MAX      10 /* of libvirtd, in the window */
#define RESTART_WINDOW_MS 60000
#define DIR_MAX           80 /* DIR/run/libvirt-sock has to fit into a sockaddr_un */

static const struct {
	const char *name; /* below DIR */
	const char *place;
} binds[] = {
	{ "run", "/run/libvirt" },     { "etc", "/etc/libvirt" },
	{ "lib", "/var/lib/libvirt" }, { "cache", "/var/cache/libvirt" },
	{ "log", "/var/log/libvirt" },
};

static const char libvirtd_conf[] = "auth_unix_ro = \"none\"\n"
				    "auth_unix_rw = \"none\"\n"
				    "unix_sock_rw_perms = \"0700\"\n"
				    "log_level = 3\n"
				    "log_outputs = \"3:stderr\"\n";

/* stdio_handler: no virtlogd.  No swtpm, no security driver but DAC, which is always there. */
static const char qemu_conf[] = "stdio_handler = \"file\"\n"
				"security_driver = \"none\"\n"
				"remember_owner = 0\n";

static _Noreturn void
die(const char *what)
{
	fprintf(stderr, "private-libvirtd: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static bool
answers(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool ok = false;

	if (fd >= 0 && strlen(path) < sizeof(addr.sun_path)) {
		memcpy(addr.sun_path, path, strlen(path) + 1);
		ok = connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) == 0;
	}
	if (fd >= 0) {
		close(fd);
	}
	return ok;
}

static void
write_file(const char *dir, const char *name, const char *text)
{
	char path[DIR_MAX + 64];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	if (f == NULL || fputs(text, f) == EOF || fclose(f) == EOF) {
		die(path);
	}
}

/* --- processes ----------------------------------------------------------------------------------- */

static bool
is_qemu(pid_t pid)
{
	char path[64], text[32] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	f = fopen(path, "re");
	if (f == NULL) {
		return false;
	}
	(void)!fgets(text, sizeof(text), f);
	fclose(f);
	return strncmp(text, "qemu-system", 11) == 0;
}

/* SIGKILL for every qemu that has a pid file in DIR; how many there are. */
static unsigned
kill_domains(const char *dir)
{
	char path[DIR_MAX + 320];
	struct dirent *e;
	unsigned count = 0;
	DIR *d;

	snprintf(path, sizeof(path), "%s/run/qemu", dir);
	d = opendir(path);
	while (d != NULL && (e = readdir(d)) != NULL) {
		size_t len = strlen(e->d_name);
		int pid = 0;
		FILE *f;

		if (len < 5 || strcmp(e->d_name + len - 4, ".pid") != 0 ||
		    strcmp(e->d_name, "driver.pid") == 0) {
			continue;
		}
		snprintf(path, sizeof(path), "%s/run/qemu/%s", dir, e->d_name);
		f = fopen(path, "re");
		if (f != NULL && fscanf(f, "%d", &pid) == 1 && pid > 1 && is_qemu(pid)) {
			(void)kill(pid, SIGKILL);
			count++;
		}
		if (f != NULL) {
			fclose(f);
		}
	}
	if (d != NULL) {
		closedir(d);
	}
	return count;
}

/* Buries until `only` has gone (0: until there is no child), at most ms.  False: time is up. */
static bool
bury(pid_t only, int64_t ms)
{
	const struct timespec step = { 0, 2000000 };
	int64_t until = now_ms() + ms;

	for (;;) {
		pid_t pid = waitpid(-1, NULL, WNOHANG);

		if (pid < 0 || (only != 0 && pid == only)) {
			return true;
		}
		if (pid == 0 && now_ms() >= until) {
			return false;
		}
		if (pid == 0) {
			nanosleep(&step, NULL);
		}
	}
}

/*
 * Orphans below us became our children: whatever is left of libvirtd's.  Until there is none: what
 * is killed may leave children of its own (libvirtd's probes of qemu fork twice).
 */
static void
kill_children(void)
{
	int64_t until = now_ms() + STOP_TIMEOUT_MS;
	char path[64];
	int pid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
	do {
		f = fopen(path, "re");
		while (f != NULL && fscanf(f, "%d", &pid) == 1) {
			(void)kill(pid, SIGKILL);
		}
		if (f != NULL) {
			fclose(f);
		}
	} while (!bury(0, 10) && now_ms() < until);
}

/* Domains first, so that libvirtd still removes their cgroups and files. */
static void
stop_all(const char *dir, pid_t libvirtd)
{
	int64_t until = now_ms() + STOP_TIMEOUT_MS;

	while (kill_domains(dir) > 0 && now_ms() < until) {
		(void)bury(libvirtd, 10);
	}
	(void)kill(libvirtd, SIGTERM);
	if (!bury(libvirtd, STOP_TIMEOUT_MS)) {
		(void)kill(libvirtd, SIGKILL);
	}
	kill_children();
}

/* --- start --------------------------------------------------------------------------------------- */

static void
make_dirs(const char *dir)
{
	char path[DIR_MAX + 64];

	if (mkdir(dir, 0711) < 0 && errno != EEXIST) {
		die(dir);
	}
	for (size_t i = 0; i < sizeof(binds) / sizeof(binds[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, binds[i].name);
		if (mkdir(path, 0755) < 0 && errno != EEXIST) {
			die(path);
		}
	}
	write_file(dir, "etc/libvirtd.conf", libvirtd_conf);
	write_file(dir, "etc/qemu.conf", qemu_conf);
}

static void
enter_mounts(const char *dir)
{
	char path[DIR_MAX + 64];

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) {
		die("mount namespace");
	}
	for (size_t i = 0; i < sizeof(binds) / sizeof(binds[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, binds[i].name);
		if ((mkdir(binds[i].place, 0755) < 0 && errno != EEXIST) ||
		    mount(path, binds[i].place, NULL, MS_BIND, NULL) < 0) {
			die(binds[i].place);
		}
	}
}

/*
 * /dev/kvm as udev would make it, 0660 root:kvm.  Without udev it is 0600 or some other group's, and
 * then libvirt's probe (as root) and its check (as qemu's user) disagree for ever: it throws its
 * capabilities away and probes qemu again at every create, 0.7 to 12 s each.
 */
static void
fix_kvm(const char *dir)
{
	const struct group *kvm = getgrnam("kvm");
	char path[DIR_MAX + 64];
	struct stat st;

	snprintf(path, sizeof(path), "%s/kvm", dir);
	if (kvm == NULL || stat("/dev/kvm", &st) < 0 || !S_ISCHR(st.st_mode) ||
	    ((st.st_mode & 0060) == 0060 && st.st_gid == kvm->gr_gid)) {
		return;
	}
	(void)unlink(path);
	if (mknod(path, S_IFCHR | 0660, st.st_rdev) < 0 || chmod(path, 0660) < 0 ||
	    chown(path, 0, kvm->gr_gid) < 0 || mount(path, "/dev/kvm", NULL, MS_BIND, NULL) < 0) {
		fprintf(stderr, "private-libvirtd: /dev/kvm: %s\n", strerror(errno));
	}
}

static pid_t
start_libvirtd(const char *dir)
{
	char pid_file[DIR_MAX + 64], log[DIR_MAX + 64];
	sigset_t none;
	pid_t pid;
	int fd;

	snprintf(pid_file, sizeof(pid_file), "%s/run/libvirtd.pid", dir);
	snprintf(log, sizeof(log), "%s/log/libvirtd.log", dir);
	pid = fork();
	if (pid != 0) {
		return pid;
	}
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0) {
		die(log);
	}
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	(void)dup2(fd, 0);
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	execl(LIBVIRTD, LIBVIRTD, "--config", "/etc/libvirt/libvirtd.conf", "--pid-file", pid_file,
	      (char *)NULL);
	die(LIBVIRTD);
}

/* --- life ---------------------------------------------------------------------------------------- */

/*
 * libvirtd has ended by itself.  As a service manager would: another one, which finds the VMs of the
 * last by its state files; not again and again.
 */
static bool
restart_libvirtd(const char *dir, pid_t *libvirtd)
{
	static int64_t first_at;
	static unsigned count;

	if (count == 0 || now_ms() - first_at > RESTART_WINDOW_MS) {
		first_at = now_ms();
		count = 0;
	}
	if (++count > RESTARTS_MAX) {
		return false;
	}
	fprintf(stderr, "private-libvirtd: libvirtd ended, see %s/log; starting another\n", dir);
	*libvirtd = start_libvirtd(dir);
	return *libvirtd > 0;
}

/* Waits for the end: a signal, the parent's end, libvirtd's end.  Buries meanwhile. */
static bool
serve(const char *dir, pid_t *libvirtd, int signal_fd, int parent_fd)
{
	char socket_path[DIR_MAX + 64];
	int64_t until = now_ms() + READY_TIMEOUT_MS;
	bool is_ready = false;

	snprintf(socket_path, sizeof(socket_path), "%s/run/libvirt-sock", dir);
	for (;;) {
		struct pollfd p[2] = { { signal_fd, POLLIN, 0 }, { parent_fd, POLLIN, 0 } };
		struct signalfd_siginfo info;
		pid_t pid;

		(void)poll(p, 2, is_ready ? -1 : READY_STEP_MS);
		if (p[1].revents != 0) {
			return true;
		}
		while (read(signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
			if (info.ssi_signo != SIGCHLD) {
				return true;
			}
		}
		while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
			if (pid == *libvirtd && (!is_ready || !restart_libvirtd(dir, libvirtd))) {
				fprintf(stderr, "private-libvirtd: libvirtd ended, see %s/log\n",
					dir);
				return false;
			}
		}
		if (!is_ready && answers(socket_path)) {
			is_ready = true;
			printf("ready qemu+unix:///system?socket=%s\n", socket_path);
			fflush(stdout);
		}
		if (!is_ready && now_ms() >= until) {
			fprintf(stderr, "private-libvirtd: no answer, see %s/log\n", dir);
			return false;
		}
	}
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st;
	(void)type;
	(void)at;
	(void)remove(path);
	return 0;
}

static bool
has_option(int argc, char **argv, const char *option)
{
	for (int i = 2; i < argc; i++) {
		if (strcmp(argv[i], option) == 0) {
			return true;
		}
	}
	return false;
}

int
main(int argc, char **argv)
{
	const char *dir = argc > 1 ? argv[1] : "";
	bool if_needed = has_option(argc, argv, "--if-needed");
	bool remove_dir = has_option(argc, argv, "--remove");
	int signal_fd, parent_fd;
	sigset_t mask;
	pid_t libvirtd;
	bool ok;

	if (dir[0] != '/' || strlen(dir) >= DIR_MAX || argc != 2 + if_needed + remove_dir) {
		fprintf(stderr, "usage: private-libvirtd DIR [--if-needed] [--remove]   "
				"(DIR: absolute, short)\n");
		return 2;
	}
	if (if_needed && answers(SYSTEM_SOCKET)) {
		printf("ready qemu:///system\n");
		return 0;
	}
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGHUP);
	(void)sigprocmask(SIG_BLOCK, &mask, NULL);
	/* By pidfd, not by parent-death signal: that one follows the parent's thread, and is KILL
	 * when a daemon of ours starts us. */
	(void)prctl(PR_SET_PDEATHSIG, 0);
	parent_fd = (int)syscall(SYS_pidfd_open, getppid(), 0);
	signal_fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
	if (parent_fd < 0 || signal_fd < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) {
		die("start");
	}
	make_dirs(dir);
	(void)kill_domains(dir);
	enter_mounts(dir);
	fix_kvm(dir);
	libvirtd = start_libvirtd(dir);
	if (libvirtd < 0) {
		die("fork");
	}
	ok = serve(dir, &libvirtd, signal_fd, parent_fd);
	stop_all(dir, libvirtd);
	if (remove_dir) {
		(void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	}
	return ok ? 0 : 1;
}

/* SPDX-License-Identifier: ISC */
/*
 * Kernel: the link is created by a request from the host's namespace that names the job's as its
 * home; a WireGuard link keeps its UDP socket where the request came from.
 *
 * wireguard-go: it opens its UDP socket in its own namespace, the host's, so it must run there, and
 * the tun it reads must be in the job's.  It takes the tun and the UAPI socket as descriptors (WG_TUN_FD,
 * WG_UAPI_FD; we hand them over as its stdin and stdout).  Three of its habits shape this file:
 *
 * 1. It looks its tun up *by name in its own namespace* at start, sets the MTU there, and listens to
 *    that link's events.  So a placeholder of the same name, a tun that nobody uses, stands in the
 *    host's namespace as long as the child lives (taking it away costs 25 ms, so not on the way up).
 *    It is never up, and its MTU is set to the child's default beforehand: no event of it says
 *    anything that the child would believe of its own tun.
 * 2. It learns that its tun is up by trying to write to it once a second.  The tun is therefore up
 *    before the child starts; moved afterwards (as is usual) the tunnel is deaf for up to a second.
 * 3. It ends when the file of its UAPI socket vanishes, and does not remove it when it is killed.
 */
#include "net/wireguard_impl.h"

#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/secret.h"
#include "base/spawn.h"
#include "net/link.h"
#include "net/netns.h"

#define WG_MAGIC       0x6f6d7767u /* "omwg" */
#define GO_DEFAULT_MTU 1420 /* what wireguard-go sets at start */
#define UAPI_TIMEOUT_S 5 /* it answers in a millisecond, or not at all */
#define CHILD_EXIT_MS  5000 /* from SIGKILL to the end; taking the tun apart needs some ms */
#define UAPI_BACKLOG   8
#define ENDED_WAIT_MS  200 /* from its closing the socket to the end of a failed child */

struct om_wg {
	uint32_t magic;
	enum om_wg_backend backend;
	char name[OM_IFNAME_MAX];
	int index;
	struct om_nl genl; /* kernel: of the link's namespace */
	uint16_t family;
	pid_t pid; /* userspace: 0 when there is no child */
	int pidfd;
	int placeholder; /* the tun of the same name in the host's namespace; -1 when gone */
	bool has_socket; /* the file of the UAPI socket is ours to remove */
};

static void
fd_close(int *fd)
{
	if (*fd >= 0) {
		(void)close(*fd);
		*fd = -1;
	}
}

/* --- choice of the back end ----------------------------------------------------------------------- */

static bool
kernel_has_wireguard(void)
{
	struct om_nl nl = { .sock = NULL };
	bool yes = false;
	int ns = -1;

	/* In a namespace of its own: nothing is left however this ends. */
	if (om_netns_new(&ns, NULL) != OM_OK) {
		return false;
	}
	if (om_nl_open(&nl, NETLINK_ROUTE, NULL) == OM_OK) {
		yes = om_link_new(&nl, "wireguard", "omprobe", ns, NULL) == OM_OK;
	}
	om_nl_close(&nl);
	fd_close(&ns);
	return yes;
}

static bool
find_program(char *path, size_t path_size)
{
	static const char *const places[] = { "/usr/bin/wireguard-go",
					      "/usr/local/bin/wireguard-go",
					      "/usr/sbin/wireguard-go" };

	for (size_t i = 0; i < OM_COUNT(places); i++) {
		if (access(places[i], X_OK) == 0) {
			(void)snprintf(path, path_size, "%s", places[i]);
			return true;
		}
	}
	return false;
}

enum om_err
om_wg_choose(enum om_wg_backend want, bool has_kernel, bool has_program,
	     enum om_wg_backend *backend, struct om_why *why)
{
	*backend = OM_WG_BACKEND_NONE;
	if (has_kernel && want != OM_WG_BACKEND_USERSPACE) {
		*backend = OM_WG_BACKEND_KERNEL;
	} else if (has_program && want != OM_WG_BACKEND_KERNEL) {
		*backend = OM_WG_BACKEND_USERSPACE;
	} else if (want == OM_WG_BACKEND_KERNEL) {
		return om_why_set(why, OM_ERR_MISSING,
				  "network.wireguard = kernel: the kernel has no WireGuard");
	} else if (want == OM_WG_BACKEND_USERSPACE) {
		return om_why_set(why, OM_ERR_MISSING,
				  "network.wireguard = userspace: wireguard-go is not installed");
	} else {
		return om_why_set(
		    why, OM_ERR_MISSING,
		    "no WireGuard: the kernel has none and wireguard-go is not installed");
	}
	return OM_OK;
}

enum om_err
om_wg_probe(enum om_wg_backend want, enum om_wg_backend *backend, char *path, size_t path_size,
	    struct om_why *why)
{
	bool has_kernel = want != OM_WG_BACKEND_USERSPACE && kernel_has_wireguard();
	bool has_program = find_program(path, path_size);
	enum om_err err = om_wg_choose(want, has_kernel, has_program, backend, why);

	if (*backend != OM_WG_BACKEND_USERSPACE) {
		path[0] = '\0';
	}
	return err;
}

const char *
om_wg_backend_name(enum om_wg_backend backend)
{
	switch (backend) {
	case OM_WG_BACKEND_KERNEL:
		return "kernel";
	case OM_WG_BACKEND_USERSPACE:
		return "userspace";
	default:
		return "none";
	}
}

/* --- the UAPI socket -------------------------------------------------------------------------------- */

static void
uapi_address(const struct om_wg *wg, struct sockaddr_un *sun)
{
	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	(void)snprintf(sun->sun_path, sizeof(sun->sun_path), OM_WG_SOCKET_DIR "/%s.sock", wg->name);
}

static enum om_err
uapi_listen(struct om_wg *wg, int *fd, struct om_why *why)
{
	struct sockaddr_un sun;

	uapi_address(wg, &sun);
	if (mkdir(OM_WG_SOCKET_DIR, 0700) != 0 && errno != EEXIST) {
		return om_why_errno(why, om_err_from_errno(errno), "make " OM_WG_SOCKET_DIR);
	}
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (*fd < 0) {
		return om_why_errno(why, om_err_from_errno(errno), "UAPI socket");
	}
	if (bind(*fd, (const struct sockaddr *)&sun, sizeof(sun)) != 0) {
		return om_why_errno(why, om_err_from_errno(errno), "bind %s", sun.sun_path);
	}
	wg->has_socket = true;
	/* Who can connect can read the keys.  Nobody can before listen(). */
	if (chmod(sun.sun_path, 0600) != 0 || listen(*fd, UAPI_BACKLOG) != 0) {
		return om_why_errno(why, om_err_from_errno(errno), "listen on %s", sun.sun_path);
	}
	return OM_OK;
}

/* The answer ends with an empty line; it is at most size - 1 bytes. */
static enum om_err
uapi_read(int fd, char *out, size_t size, size_t *len, struct om_why *why)
{
	size_t used = 0;

	while (used < 2 || out[used - 1] != '\n' || out[used - 2] != '\n') {
		ssize_t n;

		if (used == size) {
			return om_why_set(why, OM_ERR_TOO_BIG, "wireguard-go: answer too long");
		}
		n = read(fd, out + used, size - used);
		if (n < 0 && errno == EINTR) {
			continue;
		}
		if (n < 0) {
			return om_why_errno(why, OM_ERR_NET, "wireguard-go: no answer");
		}
		if (n == 0) {
			return om_why_set(why, OM_ERR_NET, "wireguard-go has ended");
		}
		used += (size_t)n;
	}
	*len = used;
	return OM_OK;
}

/* One request, one answer.  The caller wipes both: they hold keys. */
static enum om_err
uapi_talk(const struct om_wg *wg, const char *req, size_t req_len, char *out, size_t size,
	  size_t *len, struct om_why *why)
{
	struct timeval limit = { .tv_sec = UAPI_TIMEOUT_S };
	struct sockaddr_un sun;
	enum om_err err;
	int fd;

	uapi_address(wg, &sun);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		return om_why_errno(why, om_err_from_errno(errno), "UAPI socket");
	}
	if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0 ||
	    connect(fd, (const struct sockaddr *)&sun, sizeof(sun)) != 0) {
		err = om_why_errno(why, OM_ERR_NET, "connect to %s", sun.sun_path);
		goto out;
	}
	/* A request is smaller than a socket's buffer, so one send takes it all. */
	if (send(fd, req, req_len, MSG_NOSIGNAL) != (ssize_t)req_len) {
		err = om_why_errno(why, OM_ERR_NET, "wireguard-go: send");
		goto out;
	}
	err = uapi_read(fd, out, size, len, why);
out:
	fd_close(&fd);
	return err;
}

/* --- making one --------------------------------------------------------------------------------------- */

/* The tun in the job's namespace, up; and the same steps for the kernel's link. */
static enum om_err
link_prepare(struct om_wg *wg, uint16_t mtu, struct om_why *why)
{
	struct om_nl nl = { .sock = NULL };
	struct om_link link;
	enum om_err err;

	err = om_nl_open(&nl, NETLINK_ROUTE, why);
	if (err == OM_OK) {
		err = om_link_get(&nl, wg->name, &link, why);
	}
	if (err == OM_OK) {
		wg->index = link.index;
		err = om_link_shape(&nl, link.index, NULL, mtu, why);
	}
	if (err == OM_OK) {
		err = om_link_up(&nl, link.index, why);
	}
	om_nl_close(&nl);
	return err;
}

static enum om_err
go_open_tun(struct om_wg *wg, int netns_fd, uint16_t mtu, int *tun, struct om_why *why)
{
	struct om_netns_scope scope = { .home = -1 };
	enum om_err err;

	err = om_netns_enter(&scope, netns_fd, why);
	if (err == OM_OK) {
		err = om_tun_open(OM_TUN_TUN, wg->name, tun, why);
	}
	if (err == OM_OK) {
		/* It goes with the namespace, in the background; the child's exit need not wait. */
		err = om_tun_persist(*tun, why);
	}
	if (err == OM_OK) {
		err = link_prepare(wg, mtu, why);
	}
	om_netns_leave(&scope);
	return err;
}

static enum om_err
go_open_placeholder(struct om_wg *wg, struct om_why *why)
{
	struct om_nl nl = { .sock = NULL };
	struct om_link link;
	enum om_err err;

	err = om_tun_open(OM_TUN_TUN, wg->name, &wg->placeholder, why);
	if (err == OM_OK) {
		err = om_nl_open(&nl, NETLINK_ROUTE, why);
	}
	if (err == OM_OK) {
		err = om_link_get(&nl, wg->name, &link, why);
	}
	if (err == OM_OK) {
		err = om_link_shape(&nl, link.index, NULL, GO_DEFAULT_MTU, why);
	}
	om_nl_close(&nl);
	return err;
}

static enum om_err
go_start(struct om_wg *wg, const char *program, int netns_fd, uint16_t mtu, struct om_why *why)
{
	const char *const argv[] = { program, "-f", wg->name, NULL };
	const char *const envp[] = { "WG_TUN_FD=0", "WG_UAPI_FD=1", "WG_PROCESS_FOREGROUND=1",
				     "LOG_LEVEL=silent", NULL };
	/*
	 * It reads strangers' packets in the host's namespace, as root.  CAP_NET_ADMIN alone: it sets
	 * the MTU of its placeholder; its tun and its socket are open already.
	 */
	struct om_spawn how = { .argv = argv,
				.envp = envp,
				.cwd = "/",
				.err_fd = -1,
				.confined = true,
				.keep_caps = UINT64_C(1) << CAP_NET_ADMIN };
	int tun = -1, sock = -1;
	enum om_err err;

	err = go_open_tun(wg, netns_fd, mtu, &tun, why);
	if (err == OM_OK) {
		err = go_open_placeholder(wg, why);
	}
	if (err == OM_OK) {
		err = uapi_listen(wg, &sock, why);
	}
	if (err == OM_OK) {
		how.in_fd = tun;
		how.out_fd = sock;
		err = om_spawn_start(&how, &wg->pid, &wg->pidfd, why);
	}
	if (err != OM_OK) {
		wg->pid = 0;
	}
	fd_close(&sock);
	fd_close(&tun);
	return err;
}

static enum om_err
kernel_start(struct om_wg *wg, int netns_fd, uint16_t mtu, struct om_why *why)
{
	struct om_netns_scope scope = { .home = -1 };
	struct om_nl host = { .sock = NULL };
	enum om_err err;

	err = om_nl_open(&host, NETLINK_ROUTE, why);
	if (err == OM_OK) {
		err = om_link_new(&host, "wireguard", wg->name, netns_fd, why);
	}
	om_nl_close(&host);
	if (err == OM_OK) {
		err = om_netns_enter(&scope, netns_fd, why);
	}
	if (err == OM_OK) {
		err = link_prepare(wg, mtu, why);
	}
	if (err == OM_OK) {
		err = om_nl_open(&wg->genl, NETLINK_GENERIC, why);
	}
	if (err == OM_OK) {
		err = om_wg_genl_family(&wg->genl, &wg->family, why);
	}
	om_netns_leave(&scope);
	return err;
}

enum om_err
om_wg_new(enum om_wg_backend backend, const char *program, const char *name, int netns_fd,
	  uint16_t mtu, struct om_wg **out, struct om_why *why)
{
	struct om_wg *wg;
	enum om_err err;

	*out = NULL;
	wg = calloc(1, sizeof(*wg));
	if (wg == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "WireGuard link: out of memory");
	}
	wg->magic = WG_MAGIC;
	wg->backend = backend;
	wg->pidfd = -1;
	wg->placeholder = -1;
	(void)snprintf(wg->name, sizeof(wg->name), "%s", name);
	if (backend == OM_WG_BACKEND_KERNEL) {
		err = kernel_start(wg, netns_fd, mtu, why);
	} else if (backend == OM_WG_BACKEND_USERSPACE) {
		err = go_start(wg, program, netns_fd, mtu, why);
	} else {
		err = om_why_set(why, OM_ERR_MISSING, "there is no WireGuard on this machine");
	}
	if (err != OM_OK) {
		om_wg_free(&wg);
		return err;
	}
	*out = wg;
	return OM_OK;
}

static enum om_err
go_configure(struct om_wg *wg, const struct om_wg_config *cfg, struct om_why *why)
{
	char text[OM_WG_UAPI_MAX];
	size_t len = 0;
	enum om_err err;
	int errnum;

	err = om_wg_uapi_encode(cfg, text, sizeof(text), &len);
	if (err != OM_OK) {
		err = om_why_set(why, err, "WireGuard settings: too long");
		goto out;
	}
	err = uapi_talk(wg, text, len, text, sizeof(text), &len, why);
	if (err != OM_OK) {
		goto out;
	}
	errnum = om_wg_uapi_errno((struct om_str){ text, len });
	if (errnum != 0) {
		err = om_why_set(why, OM_ERR_NET, "wireguard-go refuses the settings: errno %d",
				 errnum);
		goto out;
	}
out:
	om_secret_wipe(text, sizeof(text));
	return err;
}

enum om_err
om_wg_configure(struct om_wg *wg, const struct om_wg_config *cfg, struct om_why *why)
{
	OM_ASSERT(wg->magic == WG_MAGIC);
	if (wg->backend == OM_WG_BACKEND_KERNEL) {
		return om_wg_genl_set(&wg->genl, wg->family, wg->name, cfg, why);
	}
	return go_configure(wg, cfg, why);
}

static enum om_err
go_stats(struct om_wg *wg, struct om_wg_stats *out, struct om_why *why)
{
	static const char req[] = "get=1\n\n";
	char text[OM_WG_UAPI_MAX];
	size_t len = 0;
	enum om_err err;

	err = uapi_talk(wg, req, sizeof(req) - 1, text, sizeof(text), &len, why);
	if (err == OM_OK) {
		err = om_wg_uapi_stats((struct om_str){ text, len }, out);
		if (err != OM_OK) {
			(void)om_why_set(why, err, "wireguard-go: answer not understood");
		}
	}
	om_secret_wipe(text, sizeof(text)); /* the answer holds the private key */
	return err;
}

enum om_err
om_wg_get_stats(struct om_wg *wg, struct om_wg_stats *out, struct om_why *why)
{
	OM_ASSERT(wg->magic == WG_MAGIC);
	memset(out, 0, sizeof(*out));
	if (wg->backend == OM_WG_BACKEND_KERNEL) {
		return om_wg_genl_stats(&wg->genl, wg->family, wg->name, out, why);
	}
	return go_stats(wg, out, why);
}

int
om_wg_pidfd(const struct om_wg *wg)
{
	return wg->pidfd;
}

bool
om_wg_has_ended(const struct om_wg *wg)
{
	struct pollfd end = { .fd = wg->pidfd, .events = POLLIN };

	return wg->pidfd >= 0 && poll(&end, 1, ENDED_WAIT_MS) == 1;
}

int
om_wg_index(const struct om_wg *wg)
{
	return wg->index;
}

static void
go_stop(struct om_wg *wg)
{
	struct pollfd end = { .fd = wg->pidfd, .events = POLLIN };
	struct sockaddr_un sun;
	int n;

	if (wg->pid > 0) {
		/* By descriptor: a pid could be another process by now. */
		(void)pidfd_send_signal(wg->pidfd, SIGKILL, NULL, 0);
		fd_close(&wg->placeholder); /* meanwhile the child ends */
		do {
			n = poll(&end, 1, CHILD_EXIT_MS);
		} while (n < 0 && errno == EINTR);
		if (n == 1) {
			(void)waitpid(wg->pid, NULL, 0);
		} else {
			om_warn("net.wireguard_go_stuck", "%s: pid %d does not end", wg->name,
				(int)wg->pid);
		}
	}
	if (wg->has_socket) {
		uapi_address(wg, &sun);
		(void)unlink(sun.sun_path);
	}
	fd_close(&wg->pidfd);
	fd_close(&wg->placeholder);
}

void
om_wg_free(struct om_wg **wgp)
{
	struct om_wg *wg = *wgp;

	*wgp = NULL;
	if (wg == NULL) {
		return;
	}
	OM_ASSERT(wg->magic == WG_MAGIC);
	if (wg->backend == OM_WG_BACKEND_USERSPACE) {
		go_stop(wg);
	}
	/* The kernel's link goes with its namespace. */
	om_nl_close(&wg->genl);
	wg->magic = 0;
	free(wg);
}

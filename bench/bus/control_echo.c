/* SPDX-License-Identifier: ISC */
/*
 * The control endpoint beside bare ZeroMQ: 16 clients on loopback tcp, each with 100 requests in
 * flight; answers a second.
 *
 *	control_echo E1|E2|E1raw|E2raw [WORKERS]	prints one JSON object
 *
 *	E1	omertad (null executor) answers `ping`: decoded, permission checked, limits counted
 *	E1raw	a ROUTER in one thread sends each frame back as it came
 *	E2	as E1, with CURVE; one key is an authorized peer
 *	E2raw	as E1raw, with CURVE and without a look at the key
 *
 * The clients are the same for all, one thread with 16 DEALER sockets, and check each answer; the
 * answering side is a process of its own.
 */
#include <errno.h>
#include <ftw.h>
#include <libgen.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zmq.h>

#include "base/assert.h"
#include "base/clock.h"
#include "msg/codec.h"
#include "msg/envelope.h"

#define CLIENTS   16u
#define IN_FLIGHT 100u
#define EACH      20000u /* a multiple of IN_FLIGHT */
#define WAIT_MS   30000
#define KEY_LEN   41 /* Z85 and NUL */

struct keys {
	char public[KEY_LEN], secret[KEY_LEN];
};

struct echo {
	const char *program; /* argv[0]: omertad is beside its folder */
	bool raw, curve;
	unsigned workers, port;
	char dir[64];
	pid_t pid;
	FILE *out; /* of the other side */
	struct keys server, client;
};

struct client {
	void *sock;
	uint32_t sent, answered;
	uint64_t ids; /* sum of those sent, less those answered */
};

static struct om_buf frames[IN_FLIGHT]; /* ids 1 to IN_FLIGHT */

static _Noreturn void
die(const char *what)
{
	(void)fprintf(stderr, "%s: %s\n", what, zmq_strerror(zmq_errno()));
	exit(1);
}

static void
set_int(void *sock, int option, int value)
{
	if (zmq_setsockopt(sock, option, &value, sizeof(value)) != 0) {
		die("zmq_setsockopt");
	}
}

static void
set_key(void *sock, int option, const char *key)
{
	if (zmq_setsockopt(sock, option, key, KEY_LEN) != 0) {
		die("CURVE");
	}
}

static void *
socket_new(void *zmq, int type)
{
	void *sock = zmq_socket(zmq, type);

	if (sock == NULL) {
		die("zmq_socket");
	}
	set_int(sock, ZMQ_SNDHWM, 0);
	set_int(sock, ZMQ_RCVHWM, 0);
	set_int(sock, ZMQ_LINGER, 0);
	return sock;
}

/* --- the other side: a bare ROUTER -------------------------------------------------------------- */

static _Noreturn void
raw_serve(const struct echo *e, const char *url)
{
	void *zmq = zmq_ctx_new(), *sock = socket_new(zmq, ZMQ_ROUTER);

	if (e->curve) {
		set_int(sock, ZMQ_CURVE_SERVER, 1);
		set_key(sock, ZMQ_CURVE_SECRETKEY, e->server.secret);
	}
	if (zmq_bind(sock, url) != 0) {
		die(url);
	}
	(void)printf("ready: %s\n", url);
	(void)fflush(stdout);
	for (;;) {
		zmq_msg_t part;

		(void)zmq_msg_init(&part);
		if (zmq_msg_recv(&part, sock, 0) < 0 ||
		    zmq_msg_send(&part, sock, zmq_msg_more(&part) ? ZMQ_SNDMORE : 0) < 0) {
			die("echo");
		}
	}
}

/* --- the other side: omertad --------------------------------------------------------------------- */

static void
write_file(const struct echo *e, const char *name, const char *text)
{
	char path[128];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", e->dir, name);
	f = fopen(path, "we");
	if (f == NULL || fputs(text, f) < 0 || fclose(f) != 0) {
		die(path);
	}
}

static _Noreturn void
omertad_serve(const struct echo *e)
{
	char text[1024], conf[128], path[512], *program = strdup(e->program);

	OM_ASSERT(program != NULL);
	(void)snprintf(path, sizeof(path), "%s/../omertad", dirname(program));
	(void)snprintf(conf, sizeof(conf), "%s/omertad.conf", e->dir);
	(void)snprintf(text, sizeof(text), "%s peer\n", e->client.public);
	write_file(e, "peers", text);
	(void)snprintf(text, sizeof(text), "public = %s\nsecret = %s\n", e->server.public,
		       e->server.secret);
	write_file(e, "curve.key", text);
	(void)snprintf(
	    text, sizeof(text),
	    "[daemon]\nstate_dir = %s/state\nrun_dir = %s/run\nlog_level = warn\n"
	    "workers = %u\n[control]\ntcp = yes\nport = %u\nauthorized_peers = %s/peers\n"
	    "server_key = %s/curve.key\ntcp_insecure_loopback = %s\n"
	    "[vm]\ndriver = null\n[network]\nwireguard = none\n",
	    e->dir, e->dir, e->workers, e->port, e->dir, e->dir, e->curve ? "no" : "yes");
	write_file(e, "omertad.conf", text);
	(void)execl(path, "omertad", "start", "--config", conf, (char *)NULL);
	die(path);
}

/* A port that is free now. */
static unsigned
free_port(void)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_addr = { .s_addr = htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) != 0 ||
	    getsockname(fd, (struct sockaddr *)&at, &len) != 0) {
		die("no port");
	}
	(void)close(fd);
	return ntohs(at.sin_port);
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void
other_end(struct echo *e)
{
	(void)kill(e->pid, SIGTERM);
	while (waitpid(e->pid, NULL, 0) < 0 && errno == EINTR) {
	}
	(void)fclose(e->out);
	(void)nftw(e->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void
other_start(struct echo *e, const char *url)
{
	char line[512] = "";
	bool ready = false, over = false;
	int out[2];

	if (mkdtemp(e->dir) == NULL || pipe(out) != 0 || (e->pid = fork()) < 0) {
		die("start");
	}
	if (e->pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
		(void)umask(077);
		if (dup2(out[1], STDOUT_FILENO) < 0 || dup2(out[1], STDERR_FILENO) < 0) {
			die("dup2");
		}
		(void)close(out[0]);
		if (e->raw) {
			raw_serve(e, url);
		}
		omertad_serve(e);
	}
	(void)close(out[1]);
	e->out = fdopen(out[0], "r");
	OM_ASSERT(e->out != NULL);
	while (!ready && !over) {
		over = fgets(line, sizeof(line), e->out) == NULL;
		ready = strncmp(line, "ready:", 6) == 0;
	}
	if (!ready) {
		other_end(e);
		(void)fprintf(stderr, "the other side is not ready: %s\n", line);
		exit(1);
	}
}

/* --- the clients --------------------------------------------------------------------------------- */

static void
client_send(struct client *c)
{
	const struct om_buf *f = &frames[c->sent % IN_FLIGHT];

	if (zmq_send(c->sock, f->data, f->len, 0) < 0) {
		die("send");
	}
	c->ids += c->sent % IN_FLIGHT + 1;
	c->sent++;
}

/* false: no answer is there. */
static bool
client_recv(const struct echo *e, struct client *c, int flags)
{
	struct om_envelope env;
	struct om_why why = { "" };
	zmq_msg_t msg;

	(void)zmq_msg_init(&msg);
	if (zmq_msg_recv(&msg, c->sock, flags) < 0) {
		if (zmq_errno() != EAGAIN || flags == 0) {
			die("no answer");
		}
		return false;
	}
	if (om_envelope_decode((struct om_bin){ zmq_msg_data(&msg), zmq_msg_size(&msg) }, &env,
			       &why) != OM_OK ||
	    env.type != (e->raw ? OM_MSG_PING : OM_MSG_OK)) {
		(void)fprintf(stderr, "a wrong answer: %s\n", why.text);
		exit(1);
	}
	c->ids -= env.id;
	c->answered++;
	(void)zmq_msg_close(&msg);
	return true;
}

static void
client_start(const struct echo *e, void *zmq, struct client *c, const char *url)
{
	c->sock = socket_new(zmq, ZMQ_DEALER);
	set_int(c->sock, ZMQ_RCVTIMEO, WAIT_MS);
	if (e->curve) {
		set_key(c->sock, ZMQ_CURVE_SERVERKEY, e->server.public);
		set_key(c->sock, ZMQ_CURVE_PUBLICKEY, e->client.public);
		set_key(c->sock, ZMQ_CURVE_SECRETKEY, e->client.secret);
	}
	if (zmq_connect(c->sock, url) != 0) {
		die(url);
	}
	client_send(c); /* connected, and heard of, before the clock starts */
	(void)client_recv(e, c, 0);
	c->sent = c->answered = 0;
}

/* Keeps all windows full until all is answered; gives seconds. */
static double
clients_run(const struct echo *e, struct client *all)
{
	struct om_mono start = om_mono_now();
	zmq_pollitem_t items[CLIENTS];
	unsigned left = CLIENTS;

	for (unsigned i = 0; i < CLIENTS; i++) {
		items[i] = (zmq_pollitem_t){ .socket = all[i].sock, .events = ZMQ_POLLIN };
		while (all[i].sent < IN_FLIGHT) {
			client_send(&all[i]);
		}
	}
	while (left > 0) {
		if (zmq_poll(items, CLIENTS, WAIT_MS) <= 0) {
			die("no answer");
		}
		for (unsigned i = 0; i < CLIENTS; i++) {
			struct client *c = &all[i];

			if ((items[i].revents & ZMQ_POLLIN) == 0) {
				continue;
			}
			while (client_recv(e, c, ZMQ_DONTWAIT)) {
				if (c->sent < EACH) {
					client_send(c);
				}
				left -= c->answered == EACH;
			}
		}
	}
	return (double)(om_mono_now().ns - start.ns) / 1e9;
}

int
main(int argc, char **argv)
{
	struct echo e = { .program = argv[0],
			  .workers = argc > 2 ? (unsigned)atoi(argv[2]) : 2,
			  .dir = "/tmp/omerta-bench.XXXXXX" };
	static struct client all[CLIENTS];
	const struct om_empty nothing = { 0 };
	char url[64];
	double took;
	void *zmq;

	if (argc < 2 || argv[1][0] != 'E' || (argv[1][1] != '1' && argv[1][1] != '2') ||
	    (argv[1][2] != '\0' && strcmp(argv[1] + 2, "raw") != 0)) {
		(void)fprintf(stderr, "usage: control_echo E1|E2|E1raw|E2raw [WORKERS]\n");
		return 2;
	}
	e.curve = argv[1][1] == '2';
	e.raw = argv[1][2] != '\0';
	e.port = free_port();
	(void)snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", e.port);
	if (zmq_curve_keypair(e.server.public, e.server.secret) != 0 ||
	    zmq_curve_keypair(e.client.public, e.client.secret) != 0) {
		die("keys");
	}
	for (uint64_t i = 0; i < IN_FLIGHT; i++) {
		OM_ASSERT(om_envelope_encode(OM_MSG_PING, i + 1, 0, &nothing, &frames[i]) == OM_OK);
	}
	other_start(&e, url);
	zmq = zmq_ctx_new();
	for (unsigned i = 0; i < CLIENTS; i++) {
		client_start(&e, zmq, &all[i], url);
	}
	took = clients_run(&e, all);
	for (unsigned i = 0; i < CLIENTS; i++) {
		OM_ASSERT(all[i].answered == EACH && all[i].ids == 0); /* each once */
		(void)zmq_close(all[i].sock);
	}
	(void)zmq_ctx_term(zmq);
	other_end(&e);
	printf("{\"name\": \"%s\", \"workers\": %u, \"value\": %.6g, \"unit\": \"M/s\"}\n", argv[1],
	       e.workers, (double)CLIENTS * EACH / took / 1e6);
	return 0;
}

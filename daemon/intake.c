/* SPDX-License-Identifier: ISC */
/*
 * What ZeroMQ takes from the wire before it hands over anything.
 *
 * ZMQ_MAXMSGSIZE limits one frame and ZMQ_RCVHWM counts whole messages.  A message whose last part never
 * comes is in neither, nor is a frame that is not all there: both stay in the I/O thread's hands, each
 * part of two bytes as 64 bytes of memory, and no option or event tells of them.  There is no way to
 * ask for a limit on connections either, nor to end one (libzmq issue 2877).  A relay in front would
 * copy every byte twice more and hide who the peer is.  But ZeroMQ gets each connection from accept4(2),
 * each byte from recv(2), and gives the connection back to close(2): this program's own functions
 * of these names come before the C library's, count, and let an excess look like a peer that has
 * gone (ECONNABORTED, ECONNRESET), which ZeroMQ copes with.  On the I/O thread, so that nothing is
 * late, and no file is touched that may be another's by then.
 *
 * 1. A message up to OM_INTAKE_SMALL needs no room; a larger one takes it for a whole frame when that
 *    frame's head is there.  If broken: many small beginnings fill what everybody shares, or
 *    memory grows behind the count.
 * 2. What a connection holds is given back when its message is whole, or with its close.  If
 *    broken: nobody's large request has room any more.
 * 3. A file that is not a connection of ours costs a look at the table and is left alone.  If broken:
 *    libvirt's connection ends for what a client sent.
 *
 * ZMTP (https://rfc.zeromq.org/spec/23): a greeting of 64 bytes, then frames: a byte of flags, the length
 * in one byte or eight, the bytes.  CURVE puts the frames into frames that do not say whether more
 * follows: there everything counts until om_intake_read, which the endpoint calls.  The answers to
 * heartbeats are among it, hence what is forgiven with time.
 */
#include "daemon/intake.h"

#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "base/assert.h"
#include "daemon/clients.h"

#define GREETING_LEN  64
#define ZMTP_MAJOR    3 /* the first with a handshake; older peers are from before 2013 */
#define FLAG_MORE     1u
#define FLAG_LONG     2u
#define FLAG_COMMAND  4u
#define HEAD_MAX      9
#define PEERS         64 /* users and addresses, hashed: those of one slot share its limits */
#define FRAME_COST    64 /* CURVE: what ZeroMQ keeps for a part, beside its bytes */
#define SHAKE_FRAMES  2 /* CURVE: HELLO and INITIATE, before it is known who it is */
#define FORGIVE_PER_S 32 /* bytes, CURVE: a heartbeat and its answer, each every 5 s or rarer */
#define QUIET_MAX_S   (25 * 3600) /* CURVE: no request for longer than any may last */

struct conn {
	bool open, is_operator, curve;
	bool command, more; /* the frame that is under way */
	uint8_t peer; /* a slot of peers */
	uint8_t greeted; /* bytes of the greeting that came */
	uint8_t head_len;
	uint8_t head[HEAD_MAX];
	uint8_t shaken; /* frames of the handshake */
	unsigned parts; /* of the message that is under way */
	size_t frame, left; /* the frame under way: its bytes, those to come */
	size_t message; /* bytes of the message's frames, the last one as if it were there */
	size_t held; /* of intake.bytes */
	time_t seen, read; /* CURVE: when something came, when a message of it was read */
};

struct peer {
	size_t connections;
	size_t bytes;
};

static struct {
	pthread_mutex_t lock; /* everything */
	struct om_intake_conf conf;
	struct conn *conns; /* by file; NULL: not open */
	size_t conn_count;
	size_t connections, bytes;
	uint64_t refused, cut;
	struct peer peers[PEERS];
} intake = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void
intake_lock(void)
{
	int failed = pthread_mutex_lock(&intake.lock);

	OM_ASSERT(failed == 0);
}

static void
intake_unlock(void)
{
	pthread_mutex_unlock(&intake.lock);
}

static time_t
now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return now.tv_sec;
}

/* --- room ------------------------------------------------------------------------------------ */

static void
conn_hold(struct conn *c, size_t bytes)
{
	struct peer *peer = &intake.peers[c->peer];

	intake.bytes += bytes - c->held;
	peer->bytes += bytes - c->held;
	c->held = bytes;
}

/* After c->message has changed.  false: there is no room for it. */
static bool
conn_account(struct conn *c)
{
	const size_t wanted = c->message > OM_INTAKE_SMALL ? c->message : 0;

	if (wanted > c->held &&
	    !om_clients_has_room(intake.conf.max_bytes, intake.bytes, intake.peers[c->peer].bytes,
				 wanted - c->held, c->is_operator)) {
		return false;
	}
	conn_hold(c, wanted);
	return true;
}

/* --- frames ---------------------------------------------------------------------------------- */

static bool
conn_greeting(struct conn *c, unsigned char byte)
{
	const unsigned at = c->greeted++;

	return at == 0 ? byte == 0xff : at == 9 ? (byte & 1) != 0 : at != 10 || byte >= ZMTP_MAJOR;
}

static bool
frame_begin_curve(struct conn *c, uint64_t size)
{
	if (c->shaken < SHAKE_FRAMES) {
		c->shaken++;
		return size <= OM_INTAKE_SMALL;
	}
	if (size > 2 * intake.conf.max_message) {
		return false;
	}
	c->message += size + FRAME_COST;
	return c->message <= 2 * intake.conf.max_message + OM_INTAKE_SMALL && conn_account(c);
}

/* The head of a frame is there.  false: it is one too many, or there is no room for it. */
static bool
frame_begin(struct conn *c)
{
	uint64_t size = 0;

	for (unsigned i = 1; i < c->head_len; i++) {
		size = size << 8 | c->head[i];
	}
	c->command = (c->head[0] & FLAG_COMMAND) != 0;
	c->more = (c->head[0] & FLAG_MORE) != 0;
	c->head_len = 0;
	c->frame = c->left = size;
	if (c->curve) {
		return frame_begin_curve(c, size);
	}
	if (c->command) {
		/* ZeroMQ would take one that goes on for a part of a message. */
		return !c->more && size <= OM_INTAKE_SMALL;
	}
	if (++c->parts > OM_INTAKE_PARTS_MAX || size > intake.conf.max_message - c->message) {
		return false;
	}
	c->message += size;
	return conn_account(c);
}

static void
frame_end(struct conn *c)
{
	if (!c->curve && !c->command && !c->more) {
		c->parts = 0;
		c->message = 0;
		conn_hold(c, 0);
	}
}

/*
 * Between two messages: those of one short frame that are all there need no account.  Nearly all
 * requests are such.  Gives their bytes.
 */
static size_t
conn_whole(const struct conn *c, const unsigned char *p, size_t n)
{
	size_t done = 0;

	if (c->curve || c->left > 0 || c->head_len > 0 || c->parts > 0 ||
	    c->greeted < GREETING_LEN) {
		return 0;
	}
	while (n - done >= 2 && p[done] == 0 && p[done + 1] <= n - done - 2 &&
	       p[done + 1] <= intake.conf.max_message) {
		done += 2 + (size_t)p[done + 1];
	}
	return done;
}

static bool
conn_feed(struct conn *c, const unsigned char *p, size_t n)
{
	while (n > 0) {
		const size_t whole = conn_whole(c, p, n);

		if (whole > 0) {
			p += whole;
			n -= whole;
			continue;
		}
		if (c->left > 0) {
			const size_t some = n < c->left ? n : c->left;

			p += some;
			n -= some;
			c->left -= some;
		} else if (c->greeted < GREETING_LEN) {
			if (!conn_greeting(c, *p++)) {
				return false;
			}
			n--;
			continue;
		} else {
			c->head[c->head_len++] = *p++;
			n--;
			if (c->head_len < ((c->head[0] & FLAG_LONG) != 0 ? HEAD_MAX : 2)) {
				continue;
			}
			if (!frame_begin(c)) {
				return false;
			}
		}
		if (c->left == 0) {
			frame_end(c);
		}
	}
	return true;
}

/* CURVE: heartbeats are not to add up. */
static bool
conn_forgive(struct conn *c)
{
	const time_t now = now_s();
	const size_t bytes = (size_t)(now - c->seen) * FORGIVE_PER_S;
	/* Not of the frame that is under way: its room is taken until it is there. */
	const size_t least = c->left > 0 ? c->frame : 0;

	c->seen = now;
	if (c->message > least) {
		c->message = c->message - least > bytes ? c->message - bytes : least;
		conn_hold(c, c->message > OM_INTAKE_SMALL ? c->message : 0);
	}
	return now - c->read <= QUIET_MAX_S;
}

/* --- connections ----------------------------------------------------------------------------- */

static struct conn *
conn_of(int fd)
{
	if (fd < 0 || (size_t)fd >= intake.conn_count || !intake.conns[fd].open) {
		return NULL;
	}
	return &intake.conns[fd];
}

/* Who is at the other end, as far as it is known before the handshake.  false: no endpoint's. */
static bool
conn_peer(int fd, struct conn *c)
{
	union {
		struct sockaddr any;
		struct sockaddr_in four;
		struct sockaddr_in6 six;
		struct sockaddr_storage space;
	} a;
	socklen_t len = sizeof(a);
	struct ucred cred;
	uint32_t key = 0, word;

	memset(&a, 0, sizeof(a));
	if (getpeername(fd, &a.any, &len) != 0) {
		return false;
	}
	switch (a.any.sa_family) {
	case AF_UNIX:
		len = sizeof(cred);
		if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0) {
			return false;
		}
		c->is_operator = cred.uid == 0 || cred.uid == geteuid();
		key = cred.uid;
		break;
	case AF_INET:
		key = a.four.sin_addr.s_addr;
		c->curve = intake.conf.curve;
		break;
	case AF_INET6:
		for (size_t i = 0; i < sizeof(a.six.sin6_addr); i += sizeof(word)) {
			memcpy(&word, (const char *)&a.six.sin6_addr + i, sizeof(word));
			key ^= word;
		}
		c->curve = intake.conf.curve;
		break;
	default:
		return false;
	}
	c->peer = (uint8_t)((key * UINT32_C(2654435761)) >> 26); /* 6 bits: PEERS */
	return true;
}

/* false: there is one too many. */
static bool
intake_enter(int fd)
{
	struct conn c = { .open = true };
	struct peer *peer;
	bool fits = true;

	intake_lock();
	if (intake.conns != NULL && conn_peer(fd, &c)) {
		peer = &intake.peers[c.peer];
		fits = (size_t)fd < intake.conn_count &&
		       om_clients_has_room(intake.conf.max_connections, intake.connections,
					   peer->connections, 1, c.is_operator);
		if (fits) {
			intake.connections++;
			peer->connections++;
			c.seen = c.read = now_s();
			intake.conns[fd] = c;
		} else {
			intake.refused++;
		}
	}
	intake_unlock();
	return fits;
}

static void
intake_leave(int fd)
{
	struct conn *c;

	intake_lock();
	c = conn_of(fd);
	if (c != NULL) {
		conn_hold(c, 0);
		intake.connections--;
		intake.peers[c->peer].connections--;
		c->open = false;
	}
	intake_unlock();
}

/* false: the connection is to end. */
static bool
intake_take(int fd, const void *data, size_t len)
{
	bool fits = true;
	struct conn *c;

	intake_lock();
	c = conn_of(fd);
	if (c != NULL) {
		fits = (!c->curve || conn_forgive(c)) && conn_feed(c, data, len);
		intake.cut += !fits;
	}
	intake_unlock();
	return fits;
}

/* --- in the C library's place ----------------------------------------------------------------- */

int intake_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags) __asm__("accept4");
ssize_t intake_recv(int fd, void *data, size_t len, int flags) __asm__("recv");
int intake_close(int fd) __asm__("close");

int
intake_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	int got = (int)syscall(SYS_accept4, fd, addr, len, flags);

	if (got < 0 && errno == EMFILE) {
		errno = ENFILE; /* ZeroMQ's listener on a unix socket aborts at the other */
	} else if (got >= 0 && !intake_enter(got)) {
		(void)syscall(SYS_close, got);
		errno = ECONNABORTED;
		got = -1;
	}
	return got;
}

ssize_t
intake_recv(int fd, void *data, size_t len, int flags)
{
	/* By itself: ThreadSanitizer sees the write of a recvfrom, and not what libzmq orders it by. */
	ssize_t got = syscall(SYS_recvfrom, fd, data, len, flags, NULL, NULL);

	if (got > 0 && (flags & MSG_PEEK) == 0 && !intake_take(fd, data, (size_t)got)) {
		errno = ECONNRESET;
		got = -1;
	}
	return got;
}

#ifdef __SANITIZE_THREAD__
int sanitizer_close(int fd) __asm__("__interceptor_close");
#endif

/* By name in ThreadSanitizer's suppressions, and out of line for it: most calls are libzmq's. */
static __attribute__((noinline)) int
close_now(int fd)
{
#ifdef __SANITIZE_THREAD__ /* has to see the end: the next descriptor of this number is another one */
	return sanitizer_close(fd);
#else
	return (int)syscall(SYS_close, fd);
#endif
}

int
intake_close(int fd)
{
	intake_leave(fd);
	return close_now(fd);
}

/* --- from outside ---------------------------------------------------------------------------- */

/* A library may fork: its child closes files, and no other thread is there to give the lock back. */
static enum om_err
intake_first(void)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) != 0) {
		return OM_ERR_IO;
	}
	intake.conns = calloc(files.rlim_cur, sizeof(*intake.conns));
	if (intake.conns == NULL ||
	    pthread_atfork(intake_lock, intake_unlock, intake_unlock) != 0) {
		free(intake.conns);
		intake.conns = NULL;
		return OM_ERR_NOMEM;
	}
	intake.conn_count = files.rlim_cur;
	return OM_OK;
}

enum om_err
om_intake_open(const struct om_intake_conf *conf)
{
	enum om_err err = OM_OK;

	intake_lock();
	if (intake.conns == NULL) {
		err = intake_first();
	}
	intake.conf = *conf;
	if (intake.conf.max_bytes < conf->max_message) {
		intake.conf.max_bytes = conf->max_message;
	}
	if (intake.conf.max_connections > intake.conn_count / 2) {
		intake.conf.max_connections = intake.conn_count / 2;
	}
	intake_unlock();
	return err;
}

void
om_intake_read(int fd)
{
	struct conn *c;

	intake_lock();
	c = conn_of(fd);
	if (c != NULL && c->curve) {
		c->read = now_s();
		c->message = c->left > 0 ? c->frame : 0;
		conn_hold(c, c->message > OM_INTAKE_SMALL ? c->message : 0);
	}
	intake_unlock();
}

void
om_intake_stats(struct om_intake_stats *out)
{
	intake_lock();
	out->connections = intake.connections;
	out->bytes = intake.bytes;
	out->refused = intake.refused;
	out->cut = intake.cut;
	intake_unlock();
}

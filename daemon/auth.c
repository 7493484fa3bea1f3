/* SPDX-License-Identifier: ISC */
#include "daemon/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>
#include "base/parse.h"
#include "base/secret.h"

#define PEERS_FILE_MAX    (16u * 1024 * 1024)
#define OPERATOR_UIDS_MAX 4096
#define NSS_BUFFER        65536 /* a group with thousands of members */

struct auth_peer {
	char key[OM_AUTH_KEY_LEN + 1];
	struct om_caller caller;
};

struct om_auth {
	struct auth_peer *peers; /* sorted by key */
	size_t peer_count;
	uid_t operators[OPERATOR_UIDS_MAX];
	size_t operator_count;
	gid_t operator_gid, socket_gid;
	bool has_operator_gid, has_socket_gid;
};

struct auth_loader {
	struct om_auth *auth;
	const char *file;
	struct om_buf *problems;
	enum om_err err;
};

static void OM_PRINTF(3, 4)
    auth_problem(struct auth_loader *ld, unsigned line, const char *fmt, ...)
{
	char text[OM_WHY_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ld->err = OM_ERR_INVALID;
	if (ld->problems != NULL && line > 0) {
		om_buf_printf(ld->problems, "%s:%u: %s\n", ld->file, line, text);
	} else if (ld->problems != NULL) {
		om_buf_printf(ld->problems, "%s: %s\n", ld->file, text);
	}
}

/* --- operators on this machine --------------------------------------------------------------- */

static void
auth_add_operator(struct auth_loader *ld, uid_t uid)
{
	struct om_auth *auth = ld->auth;

	if (auth->operator_count == OPERATOR_UIDS_MAX) {
		auth_problem(ld, 0, "more than %d operators", OPERATOR_UIDS_MAX);
		return;
	}
	auth->operators[auth->operator_count++] = uid;
}

static bool
auth_user(struct auth_loader *ld, const char *name)
{
	char buf[NSS_BUFFER];
	struct passwd pw, *found = NULL;
	uint64_t number;

	if (om_parse_u64(om_str_of(name), 0, UINT32_MAX - 1, &number) == OM_OK) {
		auth_add_operator(ld, (uid_t)number);
		return true;
	}
	if (getpwnam_r(name, &pw, buf, sizeof(buf), &found) != 0 || found == NULL) {
		return false;
	}
	auth_add_operator(ld, pw.pw_uid);
	return true;
}

static void
auth_group(struct auth_loader *ld, const char *name)
{
	char *buf = malloc(NSS_BUFFER);
	struct group gr, *found = NULL;

	if (buf == NULL) {
		ld->err = OM_ERR_NOMEM;
		return;
	}
	if (name[0] != '\0' && getgrnam_r(name, &gr, buf, NSS_BUFFER, &found) == 0 &&
	    found != NULL) {
		ld->auth->operator_gid = gr.gr_gid;
		ld->auth->has_operator_gid = true;
		for (char **m = gr.gr_mem; *m != NULL; m++) {
			(void)auth_user(ld, *m); /* a member who has no account is nobody */
		}
	}
	free(buf);
}

static void
auth_operators(struct auth_loader *ld, const struct om_settings *s)
{
	char name[64];

	ld->file = "control.operators";
	auth_add_operator(ld, 0);
	for (size_t i = 0; i < s->control_operators.n; i++) {
		if (om_str_copy(s->control_operators.v[i], name, sizeof(name)) != OM_OK ||
		    !auth_user(ld, name)) {
			auth_problem(ld, 0, "there is no user %.*s",
				     OM_STR_ARG(s->control_operators.v[i]));
		}
	}
	auth_group(ld, s->control_operator_group);
}

static void
auth_socket_group(struct auth_loader *ld, const char *name)
{
	char *buf = malloc(NSS_BUFFER);
	struct group gr, *found = NULL;

	if (buf == NULL) {
		ld->err = OM_ERR_NOMEM;
	} else if (name != NULL && name[0] != '\0' &&
		   getgrnam_r(name, &gr, buf, NSS_BUFFER, &found) == 0 && found != NULL) {
		ld->auth->socket_gid = gr.gr_gid;
		ld->auth->has_socket_gid = true;
	}
	free(buf);
}

/* --- authorized peers ------------------------------------------------------------------------ */

/* An id is printed, logged and matched by rules: no blanks, no control bytes. */
static bool
is_id(struct om_str s)
{
	if (s.len == 0 || s.len > OM_PEER_MAX) {
		return false;
	}
	for (size_t i = 0; i < s.len; i++) {
		if (s.ptr[i] <= ' ' || s.ptr[i] > '~') {
			return false;
		}
	}
	return true;
}

static struct om_str
next_word(struct om_str *rest)
{
	struct om_str word;
	size_t i;

	*rest = om_str_trim(*rest);
	for (i = 0; i < rest->len && rest->ptr[i] != ' ' && rest->ptr[i] != '\t'; i++) {
	}
	word = (struct om_str){ rest->ptr, i };
	rest->ptr += i;
	rest->len -= i;
	return word;
}

static bool
cut_prefix(struct om_str *s, const char *prefix)
{
	size_t len = strlen(prefix);

	if (s->len < len || memcmp(s->ptr, prefix, len) != 0) {
		return false;
	}
	s->ptr += len;
	s->len -= len;
	return true;
}

/* KEY PEER [network=NAME] [role=requester|operator] */
static void
auth_peer_line(struct auth_loader *ld, struct om_str line, unsigned number)
{
	struct auth_peer *peer = &ld->auth->peers[ld->auth->peer_count];
	uint8_t raw[32];
	struct om_str word = next_word(&line);

	memset(peer, 0, sizeof(*peer));
	peer->caller.role = OM_ROLE_REQUESTER;
	if (word.len != OM_AUTH_KEY_LEN ||
	    om_str_copy(word, peer->key, sizeof(peer->key)) != OM_OK ||
	    zmq_z85_decode(raw, peer->key) == NULL) {
		auth_problem(ld, number, "a line begins with a public key of 40 Z85 characters");
		return;
	}
	word = next_word(&line);
	/* uid:0 and the like are what the kernel says of local peers: nobody may be named so. */
	if (!is_id(word) || memchr(word.ptr, '=', word.len) != NULL || cut_prefix(&word, "uid:") ||
	    om_str_is(word, OM_AUTH_OPEN_PEER) ||
	    om_str_copy(word, peer->caller.peer, sizeof(peer->caller.peer)) != OM_OK) {
		auth_problem(ld, number,
			     "behind the key comes the peer's id, 1 to %d characters "
			     "without blanks, not uid:... and not tcp",
			     OM_PEER_MAX);
		return;
	}
	while ((word = next_word(&line)).len > 0) {
		if (cut_prefix(&word, "network=")) {
			if (!is_id(word) || om_str_is(word, OM_AUTH_LOCAL_NETWORK) ||
			    om_str_copy(word, peer->caller.network, sizeof(peer->caller.network)) !=
				OM_OK) {
				auth_problem(ld, number, "that is no name of a network");
				return;
			}
		} else if (om_str_is(word, "role=operator")) {
			peer->caller.role = OM_ROLE_OPERATOR;
		} else if (!om_str_is(word, "role=requester")) {
			auth_problem(ld, number,
				     "unknown word %.*s; expected network=NAME, "
				     "role=requester or role=operator",
				     (int)(word.len < 40 ? word.len : 40), word.ptr);
			return;
		}
	}
	ld->auth->peer_count++;
}

static int
by_key(const void *a, const void *b)
{
	return strcmp(((const struct auth_peer *)a)->key, ((const struct auth_peer *)b)->key);
}

static void
auth_peers_text(struct auth_loader *ld, struct om_str text)
{
	struct om_auth *auth = ld->auth;
	struct om_str rest = text, line;
	size_t lines = 1;
	unsigned number = 0;

	for (size_t i = 0; i < text.len; i++) {
		lines += text.ptr[i] == '\n';
	}
	if (lines > OM_AUTH_PEERS_MAX) {
		auth_problem(ld, 0, "more than %d lines", OM_AUTH_PEERS_MAX);
		return;
	}
	auth->peers = calloc(lines, sizeof(*auth->peers));
	if (auth->peers == NULL) {
		ld->err = OM_ERR_NOMEM;
		return;
	}
	while (om_str_next(&rest, '\n', &line)) {
		number++;
		line = om_str_trim(line);
		/* No key begins with #: in Z85 that digit would be over 32 bits there. */
		if (line.len > 0 && line.ptr[0] != '#') {
			auth_peer_line(ld, line, number);
		}
	}
	qsort(auth->peers, auth->peer_count, sizeof(*auth->peers), by_key);
	for (size_t i = 1; i < auth->peer_count; i++) {
		if (strcmp(auth->peers[i - 1].key, auth->peers[i].key) == 0) {
			auth_problem(ld, 0, "the key %s is there twice", auth->peers[i].key);
		}
	}
}

/* Opens a file that nobody but its owner (root or us) may write; -1 with a problem told. */
static int
auth_open(struct auth_loader *ld)
{
	int fd = open(ld->file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat st;

	if (fd < 0) {
		if (errno != ENOENT) {
			auth_problem(ld, 0, "%s", strerror(errno));
		}
		return -1;
	}
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		auth_problem(ld, 0, "is no file");
	} else if ((st.st_mode & 022) != 0 || (st.st_uid != 0 && st.st_uid != geteuid())) {
		auth_problem(ld, 0, "others may write it: chmod go-w, chown root");
	} else if (st.st_size > PEERS_FILE_MAX) {
		auth_problem(ld, 0, "is too big");
	} else {
		return fd;
	}
	close(fd);
	return -1;
}

static bool
read_all(int fd, struct om_buf *out)
{
	char piece[16384];
	ssize_t n;

	while ((n = read(fd, piece, sizeof(piece))) > 0) {
		om_buf_add(out, piece, (size_t)n);
	}
	return n == 0 && !out->failed;
}

static void
auth_peers(struct auth_loader *ld, const char *path)
{
	struct om_buf text = { .max = PEERS_FILE_MAX };
	int fd;

	if (path[0] == '\0') {
		return;
	}
	ld->file = path;
	fd = auth_open(ld);
	if (fd < 0) {
		return;
	}
	if (!read_all(fd, &text)) {
		auth_problem(ld, 0, "cannot be read");
	} else {
		auth_peers_text(ld, (struct om_str){ (const char *)text.data, text.len });
	}
	close(fd);
	om_buf_fini(&text);
}

enum om_err
om_auth_load(const struct om_settings *settings, struct om_auth **out, struct om_buf *problems)
{
	struct auth_loader ld = { .problems = problems };

	ld.auth = calloc(1, sizeof(*ld.auth));
	if (ld.auth == NULL) {
		return OM_ERR_NOMEM;
	}
	auth_operators(&ld, settings);
	auth_socket_group(&ld, settings->control_socket_group);
	auth_peers(&ld, settings->control_authorized_peers);
	if (ld.err != OM_OK) {
		om_auth_free(ld.auth);
		return ld.err;
	}
	*out = ld.auth;
	return OM_OK;
}

void
om_auth_free(struct om_auth *auth)
{
	if (auth != NULL) {
		free(auth->peers);
		free(auth);
	}
}

size_t
om_auth_peer_count(const struct om_auth *auth)
{
	return auth->peer_count;
}

const gid_t *
om_auth_socket_gid(const struct om_auth *auth)
{
	return auth->has_socket_gid ? &auth->socket_gid : NULL;
}

const gid_t *
om_auth_operator_gid(const struct om_auth *auth)
{
	return auth->has_operator_gid ? &auth->operator_gid : NULL;
}

/* --- questions ------------------------------------------------------------------------------- */

/* Cuts the number behind the last colon off. */
static bool
cut_number(struct om_str *s, uint64_t *out)
{
	size_t i = s->len;

	while (i > 0 && s->ptr[i - 1] != ':') {
		i--;
	}
	if (i == 0 ||
	    om_parse_u64((struct om_str){ s->ptr + i, s->len - i }, 0, UINT32_MAX, out) != OM_OK) {
		return false;
	}
	s->len = i - 1;
	return true;
}

/* "uid:" and the number; by hand, as it is needed with each request. */
static void
uid_name(uint64_t uid, char out[OM_PEER_MAX + 1])
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + uid % 10);
		uid /= 10;
	} while (uid > 0);
	memcpy(out, "uid:", 4);
	memcpy(out + 4, digits + at, sizeof(digits) - at);
	out[4 + sizeof(digits) - at] = '\0';
}

enum om_err
om_auth_local(const struct om_auth *auth, const char *peer_address, struct om_caller *out)
{
	struct om_str rest = om_str_of(peer_address);
	uint64_t pid, gid, uid;
	bool is_operator;

	if (!cut_number(&rest, &pid) || !cut_number(&rest, &gid) || !cut_number(&rest, &uid)) {
		return OM_ERR_DENIED;
	}
	is_operator = auth->has_operator_gid && gid == auth->operator_gid;
	for (size_t i = 0; i < auth->operator_count && !is_operator; i++) {
		is_operator = auth->operators[i] == uid;
	}
	memset(out, 0, sizeof(*out));
	out->role = is_operator ? OM_ROLE_OPERATOR : OM_ROLE_REQUESTER;
	uid_name(uid, out->peer);
	memcpy(out->network, OM_AUTH_LOCAL_NETWORK, sizeof(OM_AUTH_LOCAL_NETWORK));
	return OM_OK;
}

enum om_err
om_auth_key(const struct om_auth *auth, const char *key, struct om_caller *out)
{
	struct auth_peer wanted, *found;

	if (key == NULL || strlen(key) != OM_AUTH_KEY_LEN || auth->peer_count == 0) {
		return OM_ERR_DENIED;
	}
	memcpy(wanted.key, key, sizeof(wanted.key));
	found = bsearch(&wanted, auth->peers, auth->peer_count, sizeof(*auth->peers), by_key);
	if (found == NULL) {
		return OM_ERR_DENIED;
	}
	*out = found->caller;
	return OM_OK;
}

/* --- the provider's own key ------------------------------------------------------------------ */

/* "name = VALUE"; a key may hold # and = itself, so this is no INI. */
static bool
key_line(struct om_str text, const char *name, char out[OM_AUTH_KEY_LEN + 1])
{
	struct om_str line;
	uint8_t raw[32];
	bool ok = false;

	while (!ok && om_str_next(&text, '\n', &line)) {
		line = om_str_trim(line);
		if (!cut_prefix(&line, name)) {
			continue;
		}
		line = om_str_trim(line);
		if (cut_prefix(&line, "=")) {
			line = om_str_trim(line);
			ok = line.len == OM_AUTH_KEY_LEN &&
			     om_str_copy(line, out, OM_AUTH_KEY_LEN + 1) == OM_OK &&
			     zmq_z85_decode(raw, out) != NULL;
		}
	}
	om_secret_wipe(raw, sizeof(raw));
	return ok;
}

static enum om_err
key_write(const char *path, mode_t mode, const char *text, struct om_why *why)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	size_t len = strlen(text);
	enum om_err err = OM_OK;

	if (fd < 0) {
		return om_why_errno(why, OM_ERR_IO, "%s", path);
	}
	if (write(fd, text, len) != (ssize_t)len || fsync(fd) != 0) {
		err = om_why_errno(why, OM_ERR_IO, "write %s", path);
		unlink(path);
	}
	close(fd);
	return err;
}

static enum om_err
key_make(const char *path, char public_key[OM_AUTH_KEY_LEN + 1],
	 char secret_key[OM_AUTH_KEY_LEN + 1], struct om_why *why)
{
	char text[256], pub_path[512];
	enum om_err err;

	if (zmq_curve_keypair(public_key, secret_key) != 0) {
		return om_why_set(why, OM_ERR_UNSUPPORTED, "this ZeroMQ has no CURVE");
	}
	snprintf(text, sizeof(text), "public = %s\nsecret = %s\n", public_key, secret_key);
	err = key_write(path, 0600, text, why);
	om_secret_wipe(text, sizeof(text));
	if (err == OM_OK) {
		snprintf(text, sizeof(text), "%s\n", public_key);
		snprintf(pub_path, sizeof(pub_path), "%s.pub", path);
		unlink(pub_path);
		err = key_write(pub_path, 0644, text, why);
	}
	return err;
}

enum om_err
om_auth_server_key(const char *path, char public_key[OM_AUTH_KEY_LEN + 1],
		   char secret_key[OM_AUTH_KEY_LEN + 1], struct om_why *why)
{
	struct om_buf text = { .max = 4096 };
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	enum om_err err = OM_OK;
	struct om_str view;
	struct stat st;

	if (fd < 0 && errno == ENOENT) {
		return key_make(path, public_key, secret_key, why);
	}
	if (fd < 0) {
		return om_why_errno(why, OM_ERR_IO, "%s", path);
	}
	if (fstat(fd, &st) != 0 || (st.st_mode & 077) != 0) {
		err = om_why_set(why, OM_ERR_DENIED, "%s: others may read it: chmod 0600", path);
		goto out;
	}
	if (!read_all(fd, &text)) {
		err = om_why_errno(why, OM_ERR_IO, "read %s", path);
		goto out;
	}
	view = (struct om_str){ (const char *)text.data, text.len };
	if (!key_line(view, "public", public_key) || !key_line(view, "secret", secret_key)) {
		err = om_why_set(why, OM_ERR_CORRUPT,
				 "%s: expected two lines, public = KEY and secret = KEY", path);
	}
out:
	if (text.data != NULL) {
		om_secret_wipe(text.data, text.cap);
	}
	om_buf_fini(&text);
	close(fd);
	return err;
}

/* SPDX-License-Identifier: ISC */
/* CURVE keys: files of a pair, and their use on a socket. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zmq.h>
#include "base/parse.h"
#include "base/secret.h"
#include "client/client_impl.h"

#define KEYS_FILE_MAX 4096

int
om_client_keys_apply(const struct om_client_keys *keys, void *socket)
{
	if (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, keys->server, OM_CLIENT_KEY_LEN) != 0 ||
	    zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, keys->own_public, OM_CLIENT_KEY_LEN) != 0 ||
	    zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, keys->own_secret, OM_CLIENT_KEY_LEN) != 0) {
		return -1;
	}
	return 0;
}

/* "public = KEY": the value goes to out when the name fits. */
static bool
keys_line(struct om_str line, const char *name, char out[OM_CLIENT_KEY_LEN + 1])
{
	struct om_str key;

	if (!om_str_next(&line, '=', &key) || !om_str_is(om_str_trim(key), name)) {
		return false;
	}
	line = om_str_trim(line); /* Z85 itself has '=' in it: all of the rest is the value */
	return line.len == OM_CLIENT_KEY_LEN &&
	       om_str_copy(line, out, OM_CLIENT_KEY_LEN + 1) == OM_OK;
}

enum om_err
om_client_keys_read(const char *path, struct om_client_keys *keys, struct om_why *why)
{
	char text[KEYS_FILE_MAX];
	struct om_str rest, line;
	struct stat st;
	enum om_err err = OM_OK;
	bool has_public = false, has_secret = false;
	ssize_t n = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0) {
		return om_why_errno(why, om_err_from_errno(errno), "key file %s", path);
	}
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		err = om_why_set(why, OM_ERR_INVALID, "key file %s is not a file", path);
		goto out;
	}
	if ((st.st_mode & 077) != 0) {
		err = om_why_set(why, OM_ERR_DENIED,
				 "key file %s is open to others (mode %03o); chmod 600 it", path,
				 (unsigned)(st.st_mode & 0777));
		goto out;
	}
	n = read(fd, text, sizeof(text));
	rest = (struct om_str){ text, n > 0 ? (size_t)n : 0 };
	while (om_str_next(&rest, '\n', &line)) {
		has_public |= keys_line(line, "public", keys->own_public);
		has_secret |= keys_line(line, "secret", keys->own_secret);
	}
	if (!has_public || !has_secret) {
		err = om_why_set(
		    why, OM_ERR_INVALID,
		    "key file %s needs the lines \"public = KEY\" and \"secret = KEY\" with keys "
		    "of 40 characters",
		    path);
	}
out:
	om_secret_wipe(text, sizeof(text));
	(void)close(fd);
	return err;
}

enum om_err
om_client_keys_make(const char *path, struct om_client_keys *keys, struct om_why *why)
{
	char text[256];
	enum om_err err = OM_OK;
	int fd = -1, n;

	if (zmq_curve_keypair(keys->own_public, keys->own_secret) != 0) {
		return om_why_set(why, OM_ERR_UNSUPPORTED, "this libzmq was built without CURVE");
	}
	/* O_EXCL: a key that is in use is never overwritten. */
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0) {
		return om_why_errno(why, om_err_from_errno(errno), "key file %s", path);
	}
	n = snprintf(text, sizeof(text),
		     "# A CURVE pair of omerta.  Keep it secret.\n"
		     "public = %s\nsecret = %s\n",
		     keys->own_public, keys->own_secret);
	if (write(fd, text, (size_t)n) != n || fsync(fd) != 0) {
		err = om_why_errno(why, OM_ERR_IO, "key file %s", path);
		(void)unlink(path);
	}
	om_secret_wipe(text, sizeof(text));
	(void)close(fd);
	return err;
}

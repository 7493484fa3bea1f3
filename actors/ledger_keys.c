/* SPDX-License-Identifier: ISC */
/*
 * The private keys of a job's tunnel, while it waits in the store.
 *
 * They are kept in a sealed box (XSalsa20-Poly1305, libsodium's crypto_secretbox) under a key that
 * the daemon has in its run directory, which is memory on an ordinary system: a daemon that restarts
 * opens the box, a disk that is stolen or read later does not.  A stored body is either plain, or
 *
 *	0xc1 (no msgpack value begins so)  nonce  box of the two keys  the body with empty keys
 *
 * 1. No key reaches the store but in a box.  If broken: the promise of docs/network.md is.
 * 2. The hash that tells whether a second submit is the same is of the body as it was submitted.  If
 *    broken: a submit that is repeated is refused, since no two boxes are alike.
 */
#include <sodium.h>
#include <string.h>
#include "actors/ledger_impl.h"
#include "base/id.h"
#include "base/secret.h"
#include "msg/codec.h"

#define SEALED   0xc1
#define KEY_TEXT 44 /* base64 of 32 bytes */

struct keys {
	uint8_t private_len, preshared_len;
	char private_key[KEY_TEXT], preshared_key[KEY_TEXT];
};

struct head {
	uint8_t sealed;
	uint8_t nonce[crypto_secretbox_NONCEBYTES];
	uint8_t box[crypto_secretbox_MACBYTES + sizeof(struct keys)];
};

_Static_assert(OM_LEDGER_SEAL_LEN == crypto_secretbox_KEYBYTES, "the key of a secretbox");

void
ledger_keys_init(struct ledger *l)
{
	if (l->conf->seal_key != NULL) {
		memcpy(l->seal_key, l->conf->seal_key, sizeof(l->seal_key));
	} else {
		om_random(l->seal_key, sizeof(l->seal_key));
	}
}

void
ledger_keys_fini(struct ledger *l)
{
	om_secret_wipe(l->seal_key, sizeof(l->seal_key));
}

bool
ledger_keys_are_sealed(const struct om_buf *stored)
{
	return stored->len >= sizeof(struct head) && stored->data[0] == SEALED;
}

struct om_bin
ledger_keys_body(const struct om_buf *stored)
{
	const size_t head = ledger_keys_are_sealed(stored) ? sizeof(struct head) : 0;

	return (struct om_bin){ stored->data + head, stored->len - head };
}

/* vpn_config is copied: its other fields are views that stay. */
static enum om_err
body_with_keys(const struct om_job_submit *submit, struct om_str private_key,
	       struct om_str preshared_key, struct om_buf *out)
{
	struct om_job_submit copy = *submit;
	struct om_vpn_config vpn = *submit->vpn;

	vpn.private_key = private_key;
	if (OM_HAS(&vpn, vpn_config, preshared_key)) {
		vpn.preshared_key = preshared_key;
	}
	copy.vpn = &vpn;
	return om_body_encode(OM_BODY_job_submit, &copy, out);
}

enum om_err
ledger_keys_seal(struct ledger *l, struct om_bin body, struct om_buf *out)
{
	const struct om_job_submit *submit = ledger_spec_decode(l, body);
	struct keys keys = { 0 };
	struct head head = { .sealed = SEALED };
	enum om_err err = OM_ERR_INVALID;

	if (submit == NULL || submit->vpn == NULL || submit->vpn->private_key.len > KEY_TEXT ||
	    submit->vpn->preshared_key.len > KEY_TEXT) {
		return om_why_set(&l->store->why, err, "the job's body is not valid");
	}
	keys.private_len = (uint8_t)submit->vpn->private_key.len;
	memcpy(keys.private_key, submit->vpn->private_key.ptr, keys.private_len);
	if (OM_HAS(submit->vpn, vpn_config, preshared_key) && submit->vpn->preshared_key.len > 0) {
		keys.preshared_len = (uint8_t)submit->vpn->preshared_key.len;
		memcpy(keys.preshared_key, submit->vpn->preshared_key.ptr, keys.preshared_len);
	}
	om_random(head.nonce, sizeof(head.nonce));
	(void)crypto_secretbox_easy(head.box, (const uint8_t *)&keys, sizeof(keys), head.nonce,
				    l->seal_key);
	om_secret_wipe(&keys, sizeof(keys));
	om_buf_add(out, &head, sizeof(head));
	err = body_with_keys(submit, OM_STR(""), OM_STR(""), out);
	return err == OM_OK && out->failed ? OM_ERR_NOMEM : err;
}

enum om_err
ledger_keys_open(struct ledger *l, struct om_buf *stored)
{
	const struct om_job_submit *submit;
	struct om_buf whole = { 0 };
	struct keys keys;
	struct head head;
	enum om_err err;

	if (!ledger_keys_are_sealed(stored)) {
		return OM_OK;
	}
	memcpy(&head, stored->data, sizeof(head));
	if (crypto_secretbox_open_easy((uint8_t *)&keys, head.box, sizeof(head.box), head.nonce,
				       l->seal_key) != 0) {
		return om_why_set(&l->store->why, OM_ERR_KEYS_LOST,
				  "its tunnel's keys were in memory alone, and the machine has "
				  "restarted since it was submitted");
	}
	submit = ledger_spec_decode(l, ledger_keys_body(stored));
	if (submit == NULL || submit->vpn == NULL || keys.private_len > KEY_TEXT ||
	    keys.preshared_len > KEY_TEXT) {
		err = om_why_set(&l->store->why, OM_ERR_CORRUPT, "the job's body is damaged");
	} else {
		err = body_with_keys(submit, (struct om_str){ keys.private_key, keys.private_len },
				     (struct om_str){ keys.preshared_key, keys.preshared_len },
				     &whole);
		err = err == OM_OK && whole.failed ? OM_ERR_NOMEM : err;
	}
	om_secret_wipe(&keys, sizeof(keys));
	if (err == OM_OK) {
		ledger_body_fini(stored);
		*stored = whole;
	} else {
		ledger_body_fini(&whole);
	}
	return err;
}

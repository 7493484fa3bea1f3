/* SPDX-License-Identifier: ISC */
#include "client/cli_wg.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/secret.h"
#include "net/wg_quick.h"

const char *
om_cli_wg_default(char *out, size_t out_size)
{
	const char *named = getenv("OMERTA_WG"), *config = getenv("XDG_CONFIG_HOME");
	const char *home = getenv("HOME");
	int n;

	if (named != NULL && named[0] != '\0') {
		return named; /* also when it is not there: then it is an error, not "no network" */
	}
	if (config != NULL && config[0] == '/') {
		n = snprintf(out, out_size, "%s/omerta/wg.conf", config);
	} else if (home != NULL && home[0] == '/') {
		n = snprintf(out, out_size, "%s/.config/omerta/wg.conf", home);
	} else {
		return NULL;
	}
	return n > 0 && (size_t)n < out_size && access(out, F_OK) == 0 ? out : NULL;
}

/* The whole file into text, which has OM_WG_QUICK_MAX + 1 bytes; -1 with errno. */
static ssize_t
wg_slurp(const char *path, char *text)
{
	size_t len = 0;
	ssize_t n = -1;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		return -1;
	}
	while (len < OM_WG_QUICK_MAX + 1 &&
	       (n = read(fd, text + len, OM_WG_QUICK_MAX + 1 - len)) > 0) {
		len += (size_t)n;
	}
	(void)close(fd);
	return n < 0 ? -1 : (ssize_t)len;
}

static void
wg_fill(const struct om_wg_config *cfg, struct omerta_body *vpn)
{
	char key[OM_WG_KEY_TEXT], text[OM_CIDR_TEXT], endpoint[OM_ENDPOINT_TEXT];

	om_wg_key_format(cfg->private_key, key);
	omerta_set_str(vpn, "private_key", key);
	if (cfg->has_preshared_key) {
		om_wg_key_format(cfg->preshared_key, key);
		omerta_set_str(vpn, "preshared_key", key);
	}
	om_wg_key_format(cfg->peer_public_key, key);
	omerta_set_str(vpn, "peer_public_key", key);
	om_secret_wipe(key, sizeof(key));
	for (size_t i = 0; i < cfg->address_count; i++) {
		omerta_add_str(vpn, "addresses", om_cidr_format(&cfg->addresses[i], text));
	}
	for (size_t i = 0; i < cfg->allowed_count; i++) {
		omerta_add_str(vpn, "allowed_ips", om_cidr_format(&cfg->allowed[i], text));
	}
	for (size_t i = 0; i < cfg->dns_count; i++) {
		char ip[OM_IP_TEXT];

		omerta_add_str(vpn, "dns", om_ip_format(&cfg->dns[i], ip));
	}
	omerta_set_str(vpn, "endpoint", om_endpoint_format(&cfg->endpoint, endpoint));
	if (cfg->keepalive_s != 0) {
		omerta_set_u64(vpn, "keepalive", cfg->keepalive_s);
	}
	omerta_set_u64(vpn, "mtu", cfg->mtu);
}

bool
om_cli_wg_read(struct om_cli *cli, const char *path, struct omerta_body *vpn)
{
	char *text = malloc(OM_WG_QUICK_MAX + 1);
	struct om_wg_config cfg;
	struct om_why why = { "" };
	enum om_err err;
	ssize_t len;

	if (text == NULL) {
		(void)om_cli_usage(cli, "--wg: out of memory");
		return false;
	}
	len = wg_slurp(path, text);
	if (len < 0) {
		(void)om_cli_usage(cli, "--wg: %s: %s", path, strerror(errno));
		free(text);
		return false;
	}
	err = om_wg_quick_parse((struct om_str){ text, (size_t)len }, &cfg, &why);
	if (err == OM_OK) {
		wg_fill(&cfg, vpn);
		om_wg_config_wipe(&cfg);
	} else {
		(void)om_cli_usage(cli, "--wg: %s: %s", path, why.text);
	}
	om_secret_wipe(text, OM_WG_QUICK_MAX + 1);
	free(text);
	return err == OM_OK;
}

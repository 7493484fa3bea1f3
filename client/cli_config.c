/* SPDX-License-Identifier: ISC */
/* The verbs about the configuration and the operator's lists. */
#include "client/cli_impl.h"

static void
config_print(struct om_cli *cli, const struct omerta_body *table)
{
	bool origin = om_cli_opt(cli, "origin") != NULL;

	for (size_t i = 0; i < omerta_count(table, "entries"); i++) {
		const struct omerta_body *entry = omerta_body_at(table, "entries", i);
		const char *from = omerta_get_str(entry, "origin");

		om_cli_clean(cli->out, omerta_get_str(entry, "key"));
		(void)fputs(" = ", cli->out);
		om_cli_clean(cli->out, omerta_get_str(entry, "value"));
		if (origin) {
			(void)fputs(cli->out_tty ? "    # " : "\t", cli->out);
			om_cli_clean(cli->out, from != NULL ? from : "-");
		}
		(void)fputc('\n', cli->out);
	}
}

int
om_cli_config(struct om_cli *cli)
{
	struct omerta_body *table = NULL;
	int rc = omerta_config(cli->o, &table);

	return om_cli_answer(cli, rc, "config.table", table, config_print);
}

int
om_cli_config_set(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_config_set(cli->o, cli->operands[0], cli->operands[1]),
			   "%s = %s, in force and kept", cli->operands[0], cli->operands[1]);
}

int
om_cli_config_unset(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_config_unset(cli->o, cli->operands[0]),
			   "%s is as the files have it", cli->operands[0]);
}

static void
reload_print(struct om_cli *cli, const struct omerta_body *body)
{
	size_t n = omerta_count(body, "changes");

	(void)fprintf(cli->out, "the configuration was read again%s\n",
		      n == 0 ? ", nothing has changed" : ":");
	for (size_t i = 0; i < n; i++) {
		om_cli_clean(cli->out, omerta_str_at(body, "changes", i));
		(void)fputc('\n', cli->out);
	}
}

int
om_cli_config_reload(struct om_cli *cli)
{
	struct omerta_body *changes = NULL;
	int rc = omerta_config_reload(cli->o, &changes);

	return om_cli_answer(cli, rc, "config.changes", changes, reload_print);
}

int
om_cli_trust(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_trust(cli->o, cli->operands[0]),
			   "network %s is trusted, in force and kept", cli->operands[0]);
}

int
om_cli_untrust(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_untrust(cli->o, cli->operands[0]),
			   "network %s is trusted no more, in force and kept", cli->operands[0]);
}

int
om_cli_trust_peer(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_trust_peer(cli->o, cli->operands[0]),
			   "peer %s is trusted, in force and kept", cli->operands[0]);
}

int
om_cli_untrust_peer(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_untrust_peer(cli->o, cli->operands[0]),
			   "peer %s is trusted no more, in force and kept", cli->operands[0]);
}

int
om_cli_block(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_block(cli->o, cli->operands[0]),
			   "peer %s is blocked, in force and kept", cli->operands[0]);
}

int
om_cli_unblock(struct om_cli *cli)
{
	return om_cli_done(cli, omerta_unblock(cli->o, cli->operands[0]),
			   "peer %s is blocked no more, in force and kept", cli->operands[0]);
}

static void
strings_print(struct om_cli *cli, const struct omerta_body *list)
{
	for (size_t i = 0; i < omerta_count(list, "values"); i++) {
		om_cli_clean(cli->out, omerta_str_at(list, "values", i));
		(void)fputc('\n', cli->out);
	}
}

int
om_cli_trusted(struct om_cli *cli)
{
	struct omerta_body *list = NULL;
	int rc = omerta_trusted(cli->o, &list);

	return om_cli_answer(cli, rc, "string.list", list, strings_print);
}

int
om_cli_trusted_peers(struct om_cli *cli)
{
	struct omerta_body *list = NULL;
	int rc = omerta_trusted_peers(cli->o, &list);

	return om_cli_answer(cli, rc, "string.list", list, strings_print);
}

int
om_cli_blocked(struct om_cli *cli)
{
	struct omerta_body *list = NULL;
	int rc = omerta_blocked(cli->o, &list);

	return om_cli_answer(cli, rc, "string.list", list, strings_print);
}

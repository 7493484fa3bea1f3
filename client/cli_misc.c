/* SPDX-License-Identifier: ISC */
/* Verbs that are about no part of the daemon: call, keygen, version. */
#include <string.h>
#include "base/secret.h"
#include "client/cli_impl.h"

static int
misc_call(struct om_cli *cli, enum om_msg_type type, struct omerta_body *body)
{
	const char *name = om_msg_info(type)->name;
	enum om_msg_type kind = om_msg_info(type)->answer;
	struct omerta_body *answer = NULL;

	if (omerta_call(cli->o, name, body, &answer) != 0) {
		return om_cli_fail(cli);
	}
	om_cli_print_body(cli, om_msg_info(kind)->name, answer);
	omerta_body_free(answer);
	return OM_EXIT_OK;
}

/* `call job.get '{"job": "7f"}'`: the answer is always JSON. */
int
om_cli_call(struct om_cli *cli)
{
	enum om_msg_type type = om_msg_type_find(om_str_of(cli->operands[0]));
	const char *text = cli->operand_count > 1 ? cli->operands[1] : "{}";
	struct omerta_body *body;
	json_error_t error;
	json_t *object;
	int status = OM_EXIT_USAGE;

	if (type == OM_MSG_NONE || om_msg_info(type)->answer == OM_MSG_NONE) {
		return om_cli_usage(cli, "there is no request \"%s\"", cli->operands[0]);
	}
	object = strcmp(text, "-") == 0 ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &error)
					: json_loads(text, JSON_REJECT_DUPLICATES, &error);
	if (object == NULL) {
		return om_cli_usage(cli, "JSON, line %d: %s", error.line, error.text);
	}
	cli->json = true; /* errors too */
	body = om_client_body_new(om_msg_info(type)->body);
	if (om_cli_body_from_json(cli, body, object)) {
		status = misc_call(cli, type, body);
	}
	omerta_body_free(body);
	json_decref(object);
	return status;
}

int
om_cli_keygen(struct om_cli *cli)
{
	struct om_client_keys keys = { .set = false };
	struct om_why why = { "" };
	enum om_err err = om_client_keys_make(cli->operands[0], &keys, &why);
	int status = OM_EXIT_OK;

	if (err != OM_OK) {
		(void)om_client_fail_err(cli->o, err, "%s", why.text);
		status = om_cli_fail(cli);
	} else if (cli->json) {
		om_cli_print_json(cli, "keygen", json_pack("{s:s}", "public", keys.own_public));
	} else {
		(void)fprintf(cli->out, "%s\n", keys.own_public);
	}
	om_secret_wipe(&keys, sizeof(keys));
	return status;
}

int
om_cli_version(struct om_cli *cli)
{
	if (cli->json) {
		om_cli_print_json(cli, "version",
				  json_pack("{s:s, s:s, s:i}", "program", cli->program, "release",
					    OM_VERSION, "protocol", OM_PROTOCOL_VERSION));
	} else {
		(void)fprintf(cli->out, "%s %s, protocol %d\n", cli->program, OM_VERSION,
			      OM_PROTOCOL_VERSION);
	}
	return OM_EXIT_OK;
}

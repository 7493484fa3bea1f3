/* SPDX-License-Identifier: ISC */
/*
 * A verb over several jobs.  They are asked for one by one, so each has an answer of its own: what was
 * done is told, what was not is an error of that job, and the exit code is 1 when there was any.
 */
#include <string.h>
#include "client/cli_impl.h"

struct refs {
	const struct om_cli_refs *verb;
	json_t *failed; /* rows as in `count` */
	uint64_t done;
};

static void
refs_failed(struct om_cli *cli, struct refs *r, const char *id, const char *code, const char *text)
{
	(void)json_array_append_new(
	    r->failed, json_pack("{s:s, s:s, s:s}", "job", id, "code", code, "text", text));
	if (!cli->json) {
		(void)fprintf(cli->err, "%s: ", cli->program);
		om_cli_clean(cli->err, id);
		(void)fputs(": ", cli->err);
		om_cli_clean(cli->err, text);
		(void)fprintf(cli->err, " (%s)\n", code);
	}
}

/* "approved 7f3a1c00d00d: queued at level external"; of an array how many. */
static void
refs_tell(struct om_cli *cli, const char *id, const char *what, uint64_t count)
{
	struct omerta_body *job = NULL;
	const char *level = NULL;

	if (omerta_get(cli->o, id, &job) != 0) {
		(void)om_cli_done(cli, 0, "%s %s: %llu", what, id, (unsigned long long)count);
		return; /* it is done all the same */
	}
	if (strcmp(omerta_get_str(job, "state"), "queued") == 0) {
		level = omerta_get_str(job, "level");
	}
	(void)om_cli_done(cli, 0, "%s %s: %s%s%s", what, omerta_get_str(job, "job"),
			  omerta_get_str(job, "state"), level != NULL ? " at level " : "",
			  level != NULL ? level : "");
	omerta_body_free(job);
}

/* id NULL: the options say which jobs. */
static int
refs_ask(struct om_cli *cli, struct refs *r, const char *id)
{
	struct omerta_body *query = omerta_body_new(r->verb->type), *answer = NULL;
	bool cancel = strcmp(r->verb->type, "job.cancel") == 0;
	uint64_t n;
	int rc;

	if (id != NULL && cancel) {
		omerta_set_str(query, "job", id);
	} else if (id != NULL) {
		omerta_add_str(query, "jobs", id);
	}
	if (r->verb->fill != NULL) {
		r->verb->fill(cli, query);
	}
	rc = omerta_call(cli->o, r->verb->type, query, &answer);
	omerta_body_free(query);
	if (rc != 0) {
		return rc;
	}
	n = omerta_get_u64(answer, "count");
	r->done += n;
	for (size_t i = 0; i < omerta_count(answer, "failed"); i++) {
		const struct omerta_body *row = omerta_body_at(answer, "failed", i);
		const char *text = omerta_get_str(row, "text");

		refs_failed(cli, r, omerta_get_str(row, "job"), omerta_get_str(row, "code"),
			    text != NULL ? text : "");
	}
	omerta_body_free(answer);
	if (r->verb->tell && !cli->json && n > 0) {
		refs_tell(cli, id, r->verb->what, n);
	}
	return 0;
}

static int
refs_end(struct om_cli *cli, struct refs *r)
{
	bool failed = json_array_size(r->failed) > 0;

	if (cli->json) {
		json_t *object = json_pack("{s:I}", "count", (json_int_t)r->done);

		if (failed) {
			(void)json_object_set(object, "failed", r->failed);
		}
		om_cli_print_json(cli, "count", object);
	} else if (!r->verb->tell) {
		(void)om_cli_counted(cli, 0, r->done, r->verb->what);
	}
	return failed ? OM_EXIT_FAILURE : OM_EXIT_OK;
}

int
om_cli_refs(struct om_cli *cli, const struct om_cli_refs *verb)
{
	struct refs r = { .verb = verb, .failed = json_array() };
	int status = OM_EXIT_OK;

	if (cli->operand_count == 0 && refs_ask(cli, &r, NULL) != 0) {
		status = om_cli_fail(cli);
	}
	for (size_t i = 0; status == OM_EXIT_OK && i < cli->operand_count; i++) {
		if (refs_ask(cli, &r, cli->operands[i]) == 0) {
			continue;
		}
		/* An answer is about this job alone; without one there is no use in asking on. */
		if (cli->operand_count == 1 || !cli->o->answered) {
			status = om_cli_fail(cli);
		} else {
			refs_failed(cli, &r, cli->operands[i], omerta_error_code(cli->o),
				    omerta_error_text(cli->o));
		}
	}
	if (status == OM_EXIT_OK) {
		status = refs_end(cli, &r);
	}
	json_decref(r.failed);
	return status;
}

/* SPDX-License-Identifier: ISC */
/*
 * Submits a job of a few lines, shows its output while it runs, and what it cost.
 *
 *	cc submit.c $(pkg-config --cflags --libs omerta-client) -o submit && ./submit
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "omerta.h"

static int
show(void *arg, const void *data, size_t len)
{
	(void)arg;
	return fwrite(data, 1, len, stdout) == len ? 0 : -1;
}

int
main(void)
{
	struct omerta *o = omerta_new();
	struct omerta_body *job = omerta_body_new("job.submit"), *info = NULL;
	char id[OMERTA_ID_SIZE];
	int status = EXIT_FAILURE;

	if (o == NULL) {
		return EXIT_FAILURE;
	}
	omerta_set_str(job, "lang", "python");
	omerta_set_str(job, "script",
		       "import os\nfor n in range(3):\n"
		       "    print(os.environ['GREETING'], n, flush=True)\n");
	omerta_add_pair(job, "env", "GREETING", "hello");
	omerta_set_u64(job, "mem_mib", 256);
	omerta_set_u64(job, "runtime_s", 60);
	omerta_set_str(job, "network", "none");
	if (omerta_submit(o, job, id) != 0 ||
	    omerta_output(o, id, "stdout", true, NULL, show, NULL) != 0 ||
	    omerta_wait(o, id, OMERTA_FOREVER, &info) != 0) {
		fprintf(stderr, "%s: %s\n", omerta_error_code(o), omerta_error_text(o));
		goto out;
	}
	printf("%s: %s, exit %" PRId64 ", %" PRIu64 " ms of CPU\n", id,
	       omerta_get_str(info, "state"), omerta_get_i64(info, "exit_code"),
	       omerta_get_u64(info, "cpu_ms"));
	status =
	    strcmp(omerta_get_str(info, "state"), "completed") == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
out:
	omerta_body_free(info);
	omerta_body_free(job);
	omerta_free(o);
	return status;
}

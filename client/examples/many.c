/* SPDX-License-Identifier: ISC */
/* Twenty requests in flight on one connection: submits them all, then takes the answers as they come. */
#include <stdio.h>
#include <stdlib.h>
#include "omerta.h"

#define JOBS 20

static int
submit_all(struct omerta *o)
{
	char script[64];
	uint64_t ticket;

	for (int n = 0; n < JOBS; n++) {
		struct omerta_body *job = omerta_body_new("job.submit");
		int rc;

		(void)snprintf(script, sizeof(script), "print(%d ** 2)", n);
		omerta_set_str(job, "lang", "python");
		omerta_set_str(job, "script", script);
		omerta_set_str(job, "network", "none");
		rc = omerta_start(o, "job.submit", job, 0, &ticket);
		omerta_body_free(job);
		if (rc != 0) {
			return -1;
		}
	}
	return 0;
}

int
main(void)
{
	struct omerta *o = omerta_new();
	int accepted = 0;

	if (o == NULL || submit_all(o) != 0) {
		fprintf(stderr, "%s\n", o != NULL ? omerta_error_text(o) : "out of memory");
		omerta_free(o);
		return EXIT_FAILURE;
	}
	while (omerta_in_flight(o) > 0) {
		struct omerta_body *answer = NULL;
		uint64_t ticket;

		if (omerta_next(o, OMERTA_FOREVER, &ticket, &answer) == 0) {
			printf("%s %s\n", omerta_get_str(answer, "job"),
			       omerta_get_str(answer, "state"));
			accepted++;
		} else {
			fprintf(stderr, "refused: %s\n", omerta_error_text(o));
		}
		omerta_body_free(answer);
	}
	omerta_free(o);
	return accepted == JOBS ? EXIT_SUCCESS : EXIT_FAILURE;
}

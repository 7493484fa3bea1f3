/* SPDX-License-Identifier: ISC */
/*
 * Regression: a sender that was pre-empted between its look at head and its look at `taken` saw a
 * negative depth as a full mailbox.  Many tokens hop between few actors over more workers than
 * cores; a mailbox can never be full, so every send must succeed.
 */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/assert.h"
#include "runtime/actor.h"
#include "runtime/system.h"

#define ACTORS 16
#define TOKENS 64
#define HOPS   20000

static struct om_actor_id all[ACTORS];
static sem_t done;

static enum om_err
on_token(struct om_ctx *cx, void *state, const struct om_msg *msg)
{
	uint64_t left = om_msg_u64(msg);

	(void)state;
	if (left == 0) {
		OM_ASSERT(sem_post(&done) == 0);
		return OM_OK;
	}
	OM_ASSERT(om_send_u64(cx, all[om_rand(cx) % ACTORS], 1, left - 1) == OM_OK);
	return OM_OK;
}

static const struct om_handler handlers[] = { { 1, on_token } };
/* A message that is being handled still has its slot: twice the tokens is never full. */
static const struct om_actor_def def = {
	.name = "hop", .handlers = handlers, .handler_count = 1, .mailbox_slots = 2 * TOKENS
};

int
main(void)
{
	const char *text = getenv("STRESS_ROUNDS");
	long rounds = text != NULL ? strtol(text, NULL, 10) : 10;

	OM_ASSERT(sem_init(&done, 0, 0) == 0);
	for (long round = 0; round < rounds; round++) {
		struct om_system_conf conf = { .workers = 2 + (unsigned)round % 3 };
		struct om_system *sys;

		OM_ASSERT(om_system_new(&conf, &sys) == OM_OK);
		for (unsigned i = 0; i < ACTORS; i++) {
			OM_ASSERT(om_system_spawn(sys, &def, NULL, &all[i]) == OM_OK);
		}
		for (unsigned i = 0; i < TOKENS; i++) {
			struct om_msg *msg = om_system_msg_new(sys, 1, sizeof(uint64_t));

			OM_ASSERT(msg != NULL);
			*(uint64_t *)(void *)msg->payload = HOPS;
			OM_ASSERT(om_system_send(sys, all[i % ACTORS], &msg) == OM_OK);
		}
		for (unsigned i = 0; i < TOKENS; i++) {
			while (sem_wait(&done) != 0) {
			}
		}
		OM_ASSERT(om_system_stop(sys, 60000, NULL, 0) == 0);
		om_system_free(sys);
	}
	printf("%ld rounds of %d hops\n", rounds, TOKENS * HOPS);
	return 0;
}

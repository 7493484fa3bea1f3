/* SPDX-License-Identifier: ISC */
/* Redis streams, appendonly, appendfsync always: XADD; XREADGROUP, then HSET of the result and XACK. */
#include <hiredis/hiredis.h>
#include "peer.h"

struct conn {
	redisContext *redis;
	int number;
	char ids[IN_FLIGHT_MAX][48];
};

static redisReply *
must(redisReply *reply, const char *what)
{
	if (reply == NULL || reply->type == REDIS_REPLY_ERROR) {
		fail(what, reply != NULL ? reply->str : "no answer");
	}
	return reply;
}

static void
answers(struct conn *c, size_t count, const char *what)
{
	void *reply;

	while (count-- > 0) {
		if (redisGetReply(c->redis, &reply) != REDIS_OK) {
			fail(what, c->redis->errstr);
		}
		freeReplyObject(must(reply, what));
	}
}

static void *
peer_open(const char *endpoint)
{
	static int number;
	struct conn *c = calloc(1, sizeof(*c));
	redisReply *reply;

	c->redis = redisConnectUnix(endpoint);
	c->number = number++;
	if (c->redis == NULL || c->redis->err != 0) {
		fail("redis", "cannot connect");
	}
	if (c->number == 0) {
		freeReplyObject(must(redisCommand(c->redis, "FLUSHALL"), "FLUSHALL"));
		reply = redisCommand(c->redis, "XGROUP CREATE jobs workers 0 MKSTREAM");
		freeReplyObject(must(reply, "XGROUP"));
	}
	return c;
}

static void
peer_submit(void *conn, size_t count)
{
	struct conn *c = conn;
	size_t i;

	for (i = 0; i < count; i++) {
		(void)redisAppendCommand(c->redis, "XADD jobs * body %b", body, (size_t)BODY_BYTES);
	}
	answers(c, count, "XADD");
}

static void
peer_work(void *conn, size_t count)
{
	struct conn *c = conn;
	size_t done = 0, i, n;

	while (done < count) {
		redisReply *reply, *jobs;

		reply = must(redisCommand(c->redis,
					  "XREADGROUP GROUP workers w%d COUNT %d STREAMS jobs >",
					  c->number, (int)(count - done)),
			     "XREADGROUP");
		if (reply->type != REDIS_REPLY_ARRAY) {
			fail("XREADGROUP", "fewer jobs than were added");
		}
		jobs = reply->element[0]->element[1];
		n = jobs->elements;
		for (i = 0; i < n; i++) {
			const char *id = jobs->element[i]->element[0]->str;

			(void)redisAppendCommand(c->redis, "HSET result:%s state completed code 0",
						 id);
			(void)redisAppendCommand(c->redis, "XACK jobs workers %s", id);
		}
		answers(c, 2 * n, "XACK");
		freeReplyObject(reply);
		done += n;
	}
}

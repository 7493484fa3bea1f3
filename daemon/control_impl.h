/* SPDX-License-Identifier: ISC */
#ifndef OM_DAEMON_CONTROL_IMPL_H
#define OM_DAEMON_CONTROL_IMPL_H

/* Shared by the daemon/control*.c files only. */
#include <string.h>
#include "daemon/control.h"
#include "daemon/endpoint.h"

#define CONTROL_MAGIC   0x6f6d4354u
#define CONTROL_IPC     0
#define CONTROL_TCP     1
#define CONTROL_ZAP     2
#define CONTROL_NEWS    3 /* of the connections of CONTROL_IPC, then of CONTROL_TCP */
#define CONTROL_EVENTS  5
#define CONTROL_WATCHES 6

enum control_phase { CONTROL_STARTING, CONTROL_SERVING, CONTROL_DRAINING, CONTROL_ENDED };

/* Each is told by daemon.status. */
#define CONTROL_COUNTERS(X) \
	X(requests)         \
	X(answers)          \
	X(errors)           \
	X(malformed)        \
	X(denied)           \
	X(unauthenticated)  \
	X(limit_clients)    \
	X(limit_unread) X(cut_off) X(ignored_while_cut) X(client_gone) X(keys_refused) X(events)

struct control_counters {
#define CONTROL_COUNTER(name) uint64_t name;
	CONTROL_COUNTERS(CONTROL_COUNTER)
#undef CONTROL_COUNTER
};

/* A request whose answer is not sent yet; its cookie is slot and generation. */
struct control_request {
	struct om_client *client; /* NULL: free */
	uint64_t id; /* the client's */
	size_t bytes;
	uint32_t generation;
	uint32_t next; /* slot + 1: the next free one; the next answer to the same client */
	uint32_t next_client; /* slot + 1; of a client's first answer: that of the next client */
	bool delimited;
	bool answered; /* the three below are set, and the cookie is good no more */
	uint8_t *own; /* the answer; NULL: it is in control's `answers` */
	size_t at, len;
};

struct control_watch {
	struct om_endpoint ep;
	uint64_t watch;
	bool armed;
	bool kicked; /* a message to go on reading is on its way */
};

struct control {
	uint32_t magic;
	const struct om_control_conf *conf;
	const struct om_config *config; /* in force; held */
	struct om_auth *auth;
	struct om_clients *clients;
	struct control_watch watches[CONTROL_WATCHES];
	uint64_t topics; /* somebody listens to so many; 0: no event is needed */
	struct control_request *requests;
	uint32_t request_count, free_head; /* slot + 1; 0: none */
	/* slot + 1: the first answer to the first client of those that have some, and to the last one */
	uint32_t waiting_first, waiting_last;
	struct om_buf answers; /* those answers, but large ones */
	struct om_buf encoded; /* the answer that is being made */
	struct control_counters counters;
	struct om_endpoint_news news;
	enum control_phase phase;
	uint64_t
	    drain_number; /* of the last drain: the provider's answer to an earlier one is late */
	size_t ready_count; /* services that have said that they are ready */
	struct om_mono ready_at;
	uint64_t retry_timer;
	struct control_status *statuses; /* control_verbs.c */
	struct control_scrape *scrapes; /* control_metrics.c */
	bool reading; /* inside control_read, which looks at the events at its end */
	bool config_busy; /* a reload or a change is under way */
	struct control_change *config_asked; /* the filter is asked about it */
};

/* What a verb of control's own gets. */
struct control_call {
	uint64_t cookie; /* of the request: for control_answer and control_fail */
	const struct om_caller *caller;
	struct om_bin body;
	uint64_t deadline_ms;
};
typedef enum om_err (*control_verb_fn)(struct om_service *sv, struct control *c,
				       const struct control_call *call, struct om_why *why);

/* NULL: control does not answer that message.  control_verbs.c */
control_verb_fn control_verb_find(enum om_msg_type type);
/* Forgets what its verbs wait for. */
void control_verbs_stop(struct control *c);
/* Stops accepting jobs, waits for the running ones, tells main.  how: with the time-out. */
void control_drain(struct om_service *sv, struct control *c, const struct om_daemon_stop *how);
/* Reads the configuration again; cookie 0: nobody waits for the outcome. */
enum om_err control_reload(struct om_service *sv, struct control *c, uint64_t cookie,
			   const char *by, struct om_why *why);
void control_tell(struct control *c, enum om_control_event event, const char *text);

/* A request that was read from an endpoint.  control_request.c */
void control_on_request(struct om_service *sv, struct control *c, unsigned index,
			struct om_inbound *in);
/* Sends what is answered, client by client.  The caller looks at the events, or a kick does. */
void control_flush(struct control *c);
/* For an answer: it will be sent, and the endpoint's events looked at.  control.c */
void control_touched(struct om_service *sv, struct control *c, unsigned index);
/* How many numbers control has of itself, their names, their values; is it one that only grows? */
size_t control_counter_count(void);
const char *control_counter_name(size_t i);
void control_counter_values(const struct control *c, uint64_t *values);
bool control_counter_grows(size_t i);
/* daemon.metrics.  control_metrics.c */
enum om_err control_verb_metrics(struct om_service *sv, struct control *c,
				 const struct control_call *call, struct om_why *why);
void control_metrics_stop(struct control *c);
/* daemon.trace.  control_trace.c */
enum om_err control_verb_trace(struct om_service *sv, struct control *c,
			       const struct control_call *call, struct om_why *why);

/* Ends every request. */
void control_fail_all(struct om_service *sv, struct control *c, enum om_err err);

/* Both end the request; an unknown cookie is fine. */
void control_answer(struct om_service *sv, struct control *c, uint64_t cookie,
		    enum om_msg_type type, const void *body);
void control_fail(struct om_service *sv, struct control *c, uint64_t cookie, enum om_err err,
		  const char *text);
void control_clients_conf(const struct om_settings *s, struct om_clients_conf *out);

/* Bytes of an actor's name that all of its kind have: job_run of job_run/ID. */
static inline size_t
control_actor_kind(const char *name)
{
	return strcspn(name, "/");
}

#endif /* OM_DAEMON_CONTROL_IMPL_H */

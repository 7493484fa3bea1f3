/* SPDX-License-Identifier: ISC */
/*
 * What comes to job_runs by the executor and goes from them.  A job_run is no service: it asks the
 * executor, which asks the service and passes the bus's one answer on.  If an answer were lost here, a
 * job_run would wait until its own timeout.  The hypervisor's events come the same way.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "actors/executor_impl.h"
#include "actors/job_run.h"
#include "actors/names.h"

struct om_exec_relay {
	struct om_exec_relay *next, **link; /* link: what points to it */
	struct om_request rq;
};

static struct om_exec_relay *
relay_new(struct om_exec_relays *relays)
{
	struct om_exec_relay *r = calloc(1, sizeof(*r));

	if (r != NULL) {
		r->next = relays->first;
		r->link = &relays->first;
		if (r->next != NULL) {
			r->next->link = &r->next;
		}
		relays->first = r;
	}
	return r;
}

static void
relay_free(struct om_exec_relay *r)
{
	*r->link = r->next;
	if (r->next != NULL) {
		r->next->link = r->link;
	}
	free(r);
}

void
om_exec_relays_fini(struct om_exec_relays *relays)
{
	while (relays->first != NULL) {
		relay_free(relays->first);
	}
}

static void
relay_answer(struct om_ctx *cx, struct om_request *rq, enum om_err err, const char *text,
	     enum om_msg_type type, struct om_bin raw)
{
	struct om_jr_relayed *a = calloc(1, sizeof(*a));
	struct om_msg *msg = NULL;

	if (a != NULL) {
		a->err = err;
		(void)om_why_set(&a->why, err, "%s", text);
		a->type = type;
		om_buf_add(&a->body, raw.ptr, raw.len);
		if (!a->body.failed) {
			msg = om_msg_new_owner(cx, OM_JR_RELAYED, a, om_jr_relayed_free);
		}
	}
	if (msg == NULL) {
		om_jr_relayed_free(a);
		om_reply_err_to(cx, rq, OM_ERR_NOMEM);
		return;
	}
	if (om_reply_to(cx, rq, &msg) != OM_OK) {
		om_msg_free(cx, msg); /* the job_run has ended */
	}
}

static void
on_relay_answer(struct om_service *sv, void *state, const struct om_bus_answer *answer)
{
	struct om_exec_relay *wait = (struct om_exec_relay *)(uintptr_t)answer->cookie;

	(void)state;
	relay_answer(om_service_cx(sv), &wait->rq, answer->err, answer->text, answer->type,
		     answer->raw);
	relay_free(wait);
}

enum om_err
om_exec_relay(struct om_service *sv, struct om_exec_relays *relays, const struct om_msg *msg)
{
	const struct om_jr_relay *r = om_msg_obj(msg);
	struct om_exec_relay *wait = relay_new(relays);
	struct om_ctx *cx = om_service_cx(sv);
	struct om_bin none = { NULL, 0 };
	enum om_err err = OM_ERR_NOMEM;

	if (wait == NULL) {
		return err;
	}
	wait->rq = om_later(cx, msg);
	err = om_service_ask_raw(sv, r->to, r->type, (struct om_bin){ r->body.data, r->body.len },
				 NULL, r->timeout_ms, on_relay_answer, (uint64_t)(uintptr_t)wait);
	if (err != OM_OK) {
		char text[OM_WHY_MAX];

		(void)snprintf(text, sizeof(text), "%s: %s", r->to, om_err_text(err));
		relay_answer(cx, &wait->rq, err, text, OM_MSG_NONE, none);
		relay_free(wait);
	}
	return OM_OK;
}

void
om_executor_vm_event(void *system, const struct om_vm_event *event)
{
	struct om_system *sys = system;
	struct om_jr_vm_event *ev = calloc(1, sizeof(*ev));
	struct om_msg *msg;
	const char *id = event->name;

	if (ev == NULL) {
		return; /* the pidfd tells the same */
	}
	if (strncmp(id, OM_VM_PREFIX, sizeof(OM_VM_PREFIX) - 1) == 0) {
		id += sizeof(OM_VM_PREFIX) - 1;
	}
	ev->kind = event->kind;
	(void)snprintf(ev->job.text, sizeof(ev->job.text), "%s", id);
	(void)snprintf(ev->reason, sizeof(ev->reason), "%s", event->reason);
	msg = om_system_msg_new_owner(sys, OM_JR_VM_EVENT, ev, free);
	if (msg == NULL) {
		free(ev);
		return;
	}
	if (om_system_send(sys, om_whereis(sys, OM_EXECUTOR), &msg) != OM_OK) {
		om_msg_free(NULL, msg); /* no executor yet, or no more: nobody to tell */
	}
}

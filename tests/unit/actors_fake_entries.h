/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_ACTORS_FAKE_ENTRIES_H
#define OM_TESTS_ACTORS_FAKE_ENTRIES_H

/* The played ledger's lists, settings and audit. */
#include "actors_fake_disk.h"

static enum om_err
fake_on_set(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_ledger_set *m = in->body;
	struct fake_item *item = NULL;

	(void)state;
	if (disk.fail != OM_OK) {
		return disk.fail;
	}
	for (size_t i = 0; i < disk.item_count && item == NULL; i++) {
		if (om_str_is(m->list, disk.items[i].list) &&
		    om_str_is(m->key, disk.items[i].key)) {
			item = &disk.items[i];
		}
	}
	if (m->remove) {
		if (item != NULL) {
			om_buf_fini(&item->value);
			*item = disk.items[--disk.item_count];
			disk.items[disk.item_count] = (struct fake_item){ 0 };
		}
		return om_service_reply_ok(sv, in);
	}
	if (item == NULL) {
		assert_true(disk.item_count < FAKE_ITEMS);
		item = &disk.items[disk.item_count++];
		fake_copy(m->list, item->list, sizeof(item->list));
		fake_copy(m->key, item->key, sizeof(item->key));
	}
	om_buf_reset(&item->value);
	om_buf_add(&item->value, m->value.ptr, m->value.len);
	return om_service_reply_ok(sv, in);
}

static enum om_err
fake_on_items(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_ledger_list *m = in->body;
	struct om_ledger_item items[FAKE_ITEMS];
	struct om_ledger_items out = { .items = { items, 0 } };

	(void)state;
	if (disk.lists_fail && om_str_is(m->list, "trusted")) {
		return OM_ERR_DISK;
	}
	if (disk.fail != OM_OK) {
		return disk.fail;
	}
	for (size_t i = 0; i < disk.item_count; i++) {
		const struct fake_item *item = &disk.items[i];

		if (om_str_is(m->list, item->list)) {
			struct om_ledger_item *to = &items[out.items.n++];

			*to = (struct om_ledger_item){ .key = om_str_of(item->key) };
			OM_SET(to, ledger_item, value,
			       ((struct om_bin){ item->value.data, item->value.len }));
		}
	}
	return om_service_reply(sv, in, OM_MSG_LEDGER_ITEMS, &out);
}

static enum om_err
fake_on_append(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_audit_entry *m = in->body;
	struct om_audit_entry entry = *m;
	enum om_err err;

	(void)state;
	assert_true(disk.trail_count < FAKE_EVENTS);
	(void)snprintf(disk.trail[disk.trail_count++], sizeof(disk.trail[0]), "%.*s",
		       OM_STR_ARG(m->event));
	entry.seq = disk.trail_count;
	entry.at_ms = 1;
	err = om_service_reply_ok(sv, in);
	if (om_service_send(sv, OM_ACTIVITY_LOGGER, OM_MSG_AUDIT_APPENDED, &entry) != OM_OK) {
		return err; /* the logger has ended */
	}
	return err;
}

static enum om_err
fake_on_audit(struct om_service *sv, void *state, const struct om_in *in)
{
	const struct om_audit_query *m = in->body;
	struct om_audit_entry entries[FAKE_EVENTS];
	struct om_audit_table out = { .entries = { entries, 0 } };

	(void)state;
	disk.trail_after = m->after_seq;
	OM_SET(&out, audit_table, scanned, disk.trail_count);
	/* All of them are about no job. */
	for (size_t i = (size_t)m->after_seq; m->job.len == 0 && i < disk.trail_count; i++) {
		entries[out.entries.n++] = (struct om_audit_entry){
			.seq = i + 1, .at_ms = 1, .event = om_str_of(disk.trail[i])
		};
	}
	return om_service_reply(sv, in, OM_MSG_AUDIT_TABLE, &out);
}

static enum om_err
fake_on_verify(struct om_service *sv, void *state, const struct om_in *in)
{
	struct om_audit_report report = { .intact = true, .entries = disk.trail_count };

	(void)state;
	return om_service_reply(sv, in, OM_MSG_AUDIT_REPORT, &report);
}

#endif /* OM_TESTS_ACTORS_FAKE_ENTRIES_H */

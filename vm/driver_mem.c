/* SPDX-License-Identifier: ISC */
/*
 * The scripted driver.  A handle's pid is negative there (no process has it) and names the VM, so
 * that kill() works on handles as with the real one.
 */
#include "vm/driver_mem.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

#define MEM_MAGIC 0x766d656d /* "vmem" */

struct mem_vm {
	struct mem_vm *next;
	int key;
	bool is_running;
	struct om_vm_stats stats;
	char name[OM_VM_NAME_MAX + 1];
};

struct mem {
	unsigned magic;
	struct om_vm_config config;
	pthread_mutex_t lock;
	struct mem_vm *vms;
	int next_key;
	unsigned calls[OM_VM_MEM_OP_COUNT];
	struct {
		enum om_err err;
		unsigned after, times;
	} fail[OM_VM_MEM_OP_COUNT];
	void (*on_call)(void *arg, enum om_vm_mem_op op, const char *name);
	void *on_call_arg;
};

static struct mem *
mem_of(void *state)
{
	struct mem *m = state;

	OM_ASSERT(m->magic == MEM_MAGIC);
	return m;
}

/* Counts the call, runs the hook, and locks.  An error is the scripted one; locked all the same. */
static enum om_err
mem_enter(struct mem *m, enum om_vm_mem_op op, const char *name, struct om_why *why)
{
	if (m->on_call != NULL) {
		m->on_call(m->on_call_arg, op, name);
	}
	pthread_mutex_lock(&m->lock);
	m->calls[op]++;
	if (m->fail[op].after > 0) {
		m->fail[op].after--;
		return OM_OK;
	}
	if (m->fail[op].times == 0) {
		return OM_OK;
	}
	m->fail[op].times--;
	return om_why_set(why, m->fail[op].err, "scripted failure");
}

static struct mem_vm **
mem_find(struct mem *m, const char *name)
{
	struct mem_vm **at = &m->vms;

	while (*at != NULL && strcmp((*at)->name, name) != 0) {
		at = &(*at)->next;
	}
	return at;
}

static void
mem_remove(struct mem_vm **at)
{
	struct mem_vm *vm = *at;

	*at = vm->next;
	free(vm);
}

static enum om_err
mem_add(struct mem *m, const char *name, bool is_running, int *key)
{
	struct mem_vm *vm = calloc(1, sizeof(*vm));

	if (vm == NULL) {
		return OM_ERR_NOMEM;
	}
	snprintf(vm->name, sizeof(vm->name), "%s", name);
	vm->is_running = is_running;
	vm->key = --m->next_key;
	vm->next = m->vms;
	m->vms = vm;
	*key = vm->key;
	return OM_OK;
}

static enum om_err
mem_open(const struct om_vm_config *config, void **state, struct om_why *why)
{
	struct mem *m = calloc(1, sizeof(*m));

	if (m == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "out of memory");
	}
	m->magic = MEM_MAGIC;
	m->config = *config;
	pthread_mutex_init(&m->lock, NULL);
	*state = m;
	return OM_OK;
}

static void
mem_close(void *state)
{
	struct mem *m = state;

	if (m == NULL) {
		return;
	}
	OM_ASSERT(m->magic == MEM_MAGIC);
	while (m->vms != NULL) {
		mem_remove(&m->vms);
	}
	pthread_mutex_destroy(&m->lock);
	m->magic = 0;
	free(m);
}

static enum om_err
mem_create(void *state, const struct om_vm_spec *spec, struct om_vm_handle *out, struct om_why *why)
{
	struct mem *m = mem_of(state);
	enum om_err err;

	om_vm_handle_init(out);
	err = om_vm_spec_check(spec, why);
	if (err != OM_OK) {
		return err;
	}
	err = mem_enter(m, OM_VM_MEM_CREATE, spec->name, why);
	if (err == OM_OK && *mem_find(m, spec->name) != NULL) {
		err = om_why_set(why, OM_ERR_EXISTS, "%s exists", spec->name);
	}
	if (err == OM_OK) {
		err = mem_add(m, spec->name, !spec->start_paused, &out->pid);
	}
	pthread_mutex_unlock(&m->lock);
	return err;
}

static enum om_err
mem_set_running(struct mem *m, enum om_vm_mem_op op, const char *name, bool run, struct om_why *why)
{
	enum om_err err = mem_enter(m, op, name, why);
	struct mem_vm *vm = *mem_find(m, name);

	if (err == OM_OK && vm == NULL) {
		err = om_why_set(why, OM_ERR_NOT_FOUND, "no VM %s", name);
	}
	if (err == OM_OK) {
		vm->is_running = run;
	}
	pthread_mutex_unlock(&m->lock);
	return err;
}

static enum om_err
mem_resume(void *state, const char *name, struct om_why *why)
{
	return mem_set_running(mem_of(state), OM_VM_MEM_RESUME, name, true, why);
}

static enum om_err
mem_suspend(void *state, const char *name, struct om_why *why)
{
	return mem_set_running(mem_of(state), OM_VM_MEM_SUSPEND, name, false, why);
}

/* Removes a VM and tells of it, as libvirt does for one that we destroy ourselves. */
static void
mem_end(struct mem *m, const char *name, enum om_vm_event_kind kind, const char *reason)
{
	struct om_vm_event event = { .kind = kind, .name = name, .reason = reason };

	if (m->config.on_event != NULL) {
		m->config.on_event(m->config.arg, &event);
	}
}

static enum om_err
mem_destroy(void *state, const char *name, struct om_why *why)
{
	struct mem *m = mem_of(state);
	enum om_err err = mem_enter(m, OM_VM_MEM_DESTROY, name, why);
	struct mem_vm **at = mem_find(m, name);
	bool existed = err == OM_OK && *at != NULL;

	if (existed) {
		mem_remove(at);
	}
	pthread_mutex_unlock(&m->lock);
	if (existed) {
		mem_end(m, name, OM_VM_EVENT_STOPPED, "destroyed");
	}
	return err;
}

static enum om_err
mem_kill(void *state, const struct om_vm_handle *handle)
{
	struct mem *m = mem_of(state);
	enum om_err err = mem_enter(m, OM_VM_MEM_KILL, "", NULL);
	struct mem_vm **at = &m->vms;
	char name[OM_VM_NAME_MAX + 1] = "";

	while (*at != NULL && (*at)->key != handle->pid) {
		at = &(*at)->next;
	}
	if (err == OM_OK && *at == NULL) {
		err = OM_ERR_NOT_FOUND;
	}
	if (err == OM_OK) {
		memcpy(name, (*at)->name, sizeof(name));
		mem_remove(at);
	}
	pthread_mutex_unlock(&m->lock);
	if (err == OM_OK) {
		mem_end(m, name, OM_VM_EVENT_CRASHED, "killed or crashed");
	}
	return err;
}

static enum om_err
mem_list(void *state, char ***names, size_t *count, struct om_why *why)
{
	struct mem *m = mem_of(state);
	enum om_err err = mem_enter(m, OM_VM_MEM_LIST, "", why);
	size_t n = 0, max = 0;
	char **out = NULL;

	for (struct mem_vm *vm = m->vms; vm != NULL; vm = vm->next) {
		max++;
	}
	if (err == OM_OK) {
		out = calloc(max + 1, sizeof(*out));
		err = out == NULL ? OM_ERR_NOMEM : OM_OK;
	}
	for (struct mem_vm *vm = m->vms; err == OM_OK && vm != NULL; vm = vm->next) {
		out[n] = strdup(vm->name);
		n += out[n] != NULL;
	}
	pthread_mutex_unlock(&m->lock);
	if (err == OM_OK) {
		*names = out;
		*count = n;
	}
	return err;
}

static enum om_err
mem_stats(void *state, const char *name, struct om_vm_stats *out, struct om_why *why)
{
	struct mem *m = mem_of(state);
	enum om_err err = mem_enter(m, OM_VM_MEM_STATS, name, why);
	struct mem_vm *vm = *mem_find(m, name);

	if (err == OM_OK && vm == NULL) {
		err = om_why_set(why, OM_ERR_NOT_FOUND, "no VM %s", name);
	}
	if (err == OM_OK) {
		*out = vm->stats;
	}
	pthread_mutex_unlock(&m->lock);
	return err;
}

/* --- the script ------------------------------------------------------------------------------------ */

void
om_vm_mem_fail(void *state, enum om_vm_mem_op op, enum om_err err, unsigned after, unsigned times)
{
	struct mem *m = mem_of(state);

	pthread_mutex_lock(&m->lock);
	m->fail[op].err = err;
	m->fail[op].after = after;
	m->fail[op].times = times;
	pthread_mutex_unlock(&m->lock);
}

void
om_vm_mem_on_call(void *state, void (*on_call)(void *arg, enum om_vm_mem_op op, const char *name),
		  void *arg)
{
	struct mem *m = mem_of(state);

	m->on_call = on_call;
	m->on_call_arg = arg;
}

enum om_err
om_vm_mem_end(void *state, const char *name, enum om_vm_event_kind kind, const char *reason)
{
	struct mem *m = mem_of(state);
	struct mem_vm **at;
	bool existed;

	pthread_mutex_lock(&m->lock);
	at = mem_find(m, name);
	existed = *at != NULL;
	if (existed) {
		mem_remove(at);
	}
	pthread_mutex_unlock(&m->lock);
	if (existed) {
		mem_end(m, name, kind, reason);
	}
	return existed ? OM_OK : OM_ERR_NOT_FOUND;
}

enum om_err
om_vm_mem_add_orphan(void *state, const char *name)
{
	struct mem *m = mem_of(state);
	enum om_err err;
	int key;

	pthread_mutex_lock(&m->lock);
	err = mem_add(m, name, true, &key);
	pthread_mutex_unlock(&m->lock);
	return err;
}

void
om_vm_mem_set_stats(void *state, const char *name, const struct om_vm_stats *stats)
{
	struct mem *m = mem_of(state);
	struct mem_vm *vm;

	pthread_mutex_lock(&m->lock);
	vm = *mem_find(m, name);
	if (vm != NULL) {
		vm->stats = *stats;
	}
	pthread_mutex_unlock(&m->lock);
}

unsigned
om_vm_mem_calls(void *state, enum om_vm_mem_op op)
{
	struct mem *m = mem_of(state);
	unsigned n;

	pthread_mutex_lock(&m->lock);
	n = m->calls[op];
	pthread_mutex_unlock(&m->lock);
	return n;
}

size_t
om_vm_mem_count(void *state)
{
	struct mem *m = mem_of(state);
	size_t n = 0;

	pthread_mutex_lock(&m->lock);
	for (struct mem_vm *vm = m->vms; vm != NULL; vm = vm->next) {
		n++;
	}
	pthread_mutex_unlock(&m->lock);
	return n;
}

bool
om_vm_mem_is_running(void *state, const char *name)
{
	struct mem *m = mem_of(state);
	struct mem_vm *vm;
	bool is_running;

	pthread_mutex_lock(&m->lock);
	vm = *mem_find(m, name);
	is_running = vm != NULL && vm->is_running;
	pthread_mutex_unlock(&m->lock);
	return is_running;
}

const struct om_vm_driver_ops om_vm_mem_ops = {
	.name = "mem",
	.open = mem_open,
	.close = mem_close,
	.create = mem_create,
	.resume = mem_resume,
	.suspend = mem_suspend,
	.destroy = mem_destroy,
	.kill = mem_kill,
	.list = mem_list,
	.stats = mem_stats,
};

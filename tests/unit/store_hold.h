/* SPDX-License-Identifier: ISC */
#ifndef OM_TESTS_STORE_HOLD_H
#define OM_TESTS_STORE_HOLD_H

/*
 * Who waits for whom: pthread_cond_wait of the store's code is ours in these tests (Makefile).  The test's
 * thread is the store's; when it waits for what is held on the disk, that is counted and let go.  The
 * applier waits for nothing but its next work.
 */
#include "tests/unit/store_fault_vfs.h"

static pthread_t hold_main;
static int hold_waits; /* of the test's thread, for another one */
static int hold_asleep; /* under fault_lock: appliers */

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock);
int __real_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock);

static void
hold_sleeps(int asleep)
{
	(void)pthread_mutex_lock(&fault_lock);
	hold_asleep += asleep ? 1 : -1;
	(void)pthread_cond_broadcast(&hold_changed);
	(void)pthread_mutex_unlock(&fault_lock);
}

int
__wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *lock)
{
	int rc;

	if (pthread_equal(pthread_self(), hold_main)) {
		hold_waits++;
		(void)hold_let_go();
		return __real_pthread_cond_wait(cond, lock);
	}
	hold_sleeps(1);
	rc = __real_pthread_cond_wait(cond, lock);
	hold_sleeps(0);
	return rc;
}

/* It was held (hold_reached): the applier has done it all, and the store has not looked. */
static inline void
hold_done(void)
{
	(void)hold_let_go();
	(void)pthread_mutex_lock(&fault_lock);
	hold_wait(&hold_asleep, 1);
	(void)pthread_mutex_unlock(&fault_lock);
}

#endif /* OM_TESTS_STORE_HOLD_H */

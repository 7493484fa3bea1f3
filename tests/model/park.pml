/* SPDX-License-Identifier: ISC */
/*
 * Parking: two threads leave work at the doors of three workers that go to sleep (scheduler.c,
 * wake_leave and worker_idle on ck_ec).  Checked: no worker sleeps for ever while work lies at its
 * door; every work is done.
 */
#define WORKERS 3
#define WORKS	4

byte door[WORKERS];	/* inject */
byte ec[WORKERS];	/* the event count */
bool asleep[WORKERS];
byte done = 0;

inline wake_leave(w) {
	atomic { door[w]++ };
	atomic { ec[w]++; asleep[w] = false }	/* ck_ec32_inc: count and futex wake */
}

proctype giver(byte a; byte b) {
	wake_leave(a);
	wake_leave(b)
}

proctype worker(byte me) {
	byte mark;
	do
	:: atomic { door[me] > 0 -> done = done + door[me]; door[me] = 0 }	/* take_inject */
	:: else ->
		mark = ec[me];			/* ck_ec32_value before the last look */
		if
		:: door[me] > 0 -> skip
		:: else ->
			/* futex_wait: sleeps only if the count is still `mark` */
			if
			:: atomic { ec[me] == mark -> asleep[me] = true }
end:				(!asleep[me])
			:: else -> skip
			fi
		fi
	od
}

init {
	atomic {
		run worker(0); run worker(1); run worker(2);
		run giver(0, 1); run giver(0, 2)
	}
	(done == WORKS);
}

/* Never: everything rests (timeout) although work lies at a door. */
active proctype monitor() {
end2:	timeout -> assert(door[0] + door[1] + door[2] == 0 && done == WORKS)
}

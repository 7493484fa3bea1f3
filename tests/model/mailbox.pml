/* SPDX-License-Identifier: ISC */
/*
 * One life of an actor: idle bit, both lanes, doze, failure and restart, stop.  Two producers of two
 * messages each, a stopper, and a worker; a looker is the worker that ran the actor before and still
 * looks back at it.  RESTART: the actor fails once, and a supervisor restarts it.  ORDER: the stopper
 * sends a system message, perhaps a message, then the stop (and only one producer).  Each atomic is one
 * locked instruction or one load of the code; the names are those of mailbox.c and scheduler.c.
 * slot.pml has the reuse of the slot.
 *
 * Checked, in every interleaving (memory is sequentially consistent here, the fences that make it so
 * are listed in docs/memory-ordering.md):
 *
 * 1. Nobody runs the actor while another does, and it is in at most one run queue.
 * 2. At the end each accepted message was handled or dropped, and none came in after the last look.
 * 3. Nobody sleeps on a message, a restart or a stop: what the stopper waits for comes, and the actor
 *    ends (no other end is valid).
 * 4. FULL is said only when the mailbox was full.
 * 5. What the stopper sent before its stop is handled before it, and its system message before its
 *    message; a suspended actor may drop them.
 * 6. An order that is not due yet waits for a message that is there.
 *
 * A line that is marked MUTANT is one that the code needs: tests/model/run.sh --mutants takes each
 * out in turn and expects an error.
 */
#ifdef ORDER
#define PRODUCERS 1
#else
#define PRODUCERS 2
#endif
#ifdef RESTART
#define FAILS	  1
#else
#define FAILS	  0
#endif
#define EACH	  2
#ifdef RESTART		/* never full or round, no doze, no looker: too many states */
#define LIMIT	  4
#else
#define LIMIT	  2	/* mailbox_slots; at most MOD / 2, as OM_MBOX_SLOTS_MAX */
#endif
#define MOD	  (2 * LIMIT)	/* the counts in head and in life are compared modulo this */

byte count = 0;		/* head: pushes; the chain is implied */
bool idle = true;	/* head: idle bit */
#define WORD (count * 2 + idle)	/* what a compare-and-swap of head compares */
byte taken = 0, first = 0;	/* of which `first` are pulled and wait in the private list */
byte sys_restart = 0;	/* system lane */
bool sys_mine = false;
bool dead = false, stop_bit = false;	/* life */
byte stop_at = 0;

bool suspended = false, was_suspended = false, dozes = false, reported = false;
byte deferred = 0;

byte runnable = 0, running = 0;
byte accepted = 0, handled = 0, dropped = 0, sys_accepted = 0, sys_done = 0;
hidden byte skipped;
byte mine_at = 0;	/* place of the stopper's message; 0: it was refused */
bool mine_done = false;	/* its system message was handled */
byte fails = FAILS;	/* failures to come */
byte senders = PRODUCERS + 1;	/* at work */
bool closed = false;
byte looking = 0;	/* what the looker saw; 0: it does something else */

#define LANE (sys_restart > 0 || sys_mine)

inline ready() { atomic { runnable++; assert(runnable + running == 1 && !closed) } }

/* mbox_rouse */
inline rouse() {
	if
	:: atomic { idle -> idle = false; ready() }
	:: else
	fi
}

/* mbox_try, om_mbox_push; `place`: where it lies, 0 if it was refused */
inline push(place) {
	seen = WORD;	/* head, then life, then taken */
	do
	:: dead -> break
	:: else ->
#ifndef RESTART
		/* What `taken` tells with that head; a negative depth is a large one. */
		atomic {
			over = seen / 2 - taken >= LIMIT || seen / 2 < taken;
			is_full = count - taken >= LIMIT
		}
#endif
		if
#ifdef MUTANT_FULL_WITHOUT_SECOND_LOOK
		:: over -> assert(is_full); break
#else
		:: atomic { over && WORD == seen -> assert(is_full) } break
		:: atomic { over && WORD != seen -> seen = WORD }
#endif
		:: atomic { !over && WORD != seen -> seen = WORD }
		:: atomic { !over && WORD == seen -> over = idle; idle = false; count++; accepted++;
			place = count }
			if
			:: over -> ready()
			:: else
			fi;
			break
		fi
	od;
	atomic { seen = 0; over = false; is_full = false }
}

/* om_mbox_push_sys: push, fence, life again, rouse */
inline push_sys(lane) {
	if
	:: dead
	:: else ->
		atomic { lane++; sys_accepted++ }
		if
#ifndef MUTANT_SYS_WITHOUT_SECOND_LOOK
		:: dead -> lane_drop()	/* mbox_reap */
#endif
		:: else -> rouse()
		fi
	fi
}

inline lane_drop() {
	atomic { sys_done = sys_done + sys_restart + sys_mine; sys_restart = 0;
		sys_mine = false }
}

proctype producer() {
	byte i = 0, seen;
	bool over, is_full;

	do
	:: i == EACH -> break
	:: else -> push(skipped); i++
	od;
	senders--
}

proctype stopper() {
	byte seen, at;
	bool over, is_full;

#ifdef ORDER
	push_sys(sys_mine);
	if
	:: true
	:: push(mine_at)
	fi;
#endif
	/* At once, or when all has been handled: nobody may wait for a stop to be woken. */
	if
	:: true
	:: true -> senders == 1 && count == taken && !LANE && !suspended
	fi;
	/* om_mbox_control: the count is read before the exchange of life */
	at = count;
	atomic { stop_bit = true; stop_at = at; at = 0 }
	rouse();
	senders--
}

proctype supervisor() {
end:	do
	:: atomic { reported -> reported = false; senders++ }
		push_sys(sys_restart);	/* OM_KIND_RESTART */
		senders--
	od
}

/* run_sys: a whole lane is taken by one exchange and belongs to the owner then */
inline run_sys() {
	atomic {
		if
		:: sys_restart > 0 ->	/* actor_restart, om_mbox_undefer */
			sys_restart = 0; suspended = false;
			sys_done = sys_done + deferred + 1; deferred = 0
		:: else
		fi;
		if
		:: suspended -> deferred = deferred + sys_mine
		:: else -> sys_done = sys_done + sys_mine; mine_done = mine_done || sys_mine
		fi;
		sys_mine = false
	}
}

/*
 * mbox_rest, after the idle bit: who finds something takes the bit back and goes on, which here
 * is to hand the actor to the worker.
 */
inline look(saw) {
#ifdef MUTANT_REST_WITHOUT_LAST_LOOK
	skip
#else
	if
	:: LANE || stop_bit ->
		if
		:: atomic { WORD == saw -> idle = false; ready() }
#ifdef MUTANT_REST_TAKES_BACK_BLINDLY
		:: atomic { WORD != saw -> ready() }
#else
		:: WORD != saw
#endif
		fi
	:: else
	fi
#endif
}

proctype looker() {
end:	do
	:: looking > 0 -> look(looking); looking = 0
	od
}

/* om_mbox_order: is the stop due? */
#ifdef MUTANT_STOP_EXACT
#define DUE (suspended || (taken + 2 * MOD - stop_at) % MOD == 0)
#else
#ifdef MUTANT_STOP_WINDOW_ALONE
#define DUE (suspended || (taken + 2 * MOD - stop_at) % MOD < MOD / 2)
#else
#define DUE (suspended || (taken + 2 * MOD - stop_at) % MOD < MOD / 2 || count == taken)
#endif
#endif

proctype worker() {
	byte seen, was_stop;

end:	do
	:: atomic { runnable == 1 && running == 0 -> runnable = 0; running = 1 }
again:		was_stop = stop_bit;
		/* run_first */
		if
		:: atomic { LANE -> run_sys() } goto again
		:: !LANE
		fi;
		if
		:: atomic { !stop_bit && suspended } goto rest
		:: atomic { !stop_bit && !suspended } goto on
		:: atomic { stop_bit && !DUE -> assert(count > taken) } goto on
		:: stop_bit && DUE
		fi;
		if
#ifndef MUTANT_STOP_WITHOUT_LOOK_AT_LANE
		:: LANE -> goto again
#endif
		:: else -> goto close
		fi;
on:		if
		:: first > 0 -> goto message
		:: atomic { first == 0 && count > taken -> first = count - taken }	/* mbox_pull */
		/* run_dozes: it may stay in the queue and look once more */
		:: atomic { first == 0 && count == taken && !dozes && FAILS == 0 -> dozes = true;
			running = 0; ready() } goto next
		:: atomic { first == 0 && count == taken -> dozes = false } goto rest
		fi;
		if
#ifndef MUTANT_PULL_WITHOUT_SECOND_LOOK
		:: LANE || stop_bit != was_stop -> goto again
#endif
		:: else
		fi;
message:	/* run_message */
		atomic {
			taken++; first--; handled++; dozes = false;
			assert(taken != mine_at || mine_done || was_suspended);
			if
			:: fails > 0 -> fails--; suspended = true; was_suspended = true;
				reported = true	/* om_actor_leave, child_report */
			:: true
			fi
		}
		goto again;

rest:		/* mbox_rest; a suspended actor rests although its lane may be full */
		if
		:: atomic { count != taken && !suspended } goto again
		:: atomic { count == taken || suspended -> seen = WORD }
		fi;
		/* From the idle bit on a sender may schedule it, and another worker run it. */
		if
#ifdef MUTANT_REST_WITHOUT_COMPARE
		:: atomic { idle = true; running = 0; seen = WORD }
#else
		:: atomic { WORD == seen -> idle = true; running = 0; seen = WORD }
		:: else -> goto again
#endif
		fi;
		if
		:: atomic { looking == 0 && FAILS == 0 -> looking = seen }
		:: else -> look(seen)
		fi;
next:		atomic { seen = 0; was_stop = false }
	od;

close:	/* om_mbox_close: life, then the lanes, then the exchange of head, then the system lane again */
	#ifdef ORDER
	assert(was_suspended || (taken >= mine_at && mine_done));
#endif
#ifndef MUTANT_CLOSE_LIFE_LAST
	dead = true;
#endif
	do
	:: LANE -> lane_drop()
	:: !LANE && count > taken -> atomic { dropped = dropped + count - taken; taken = count; first = 0 }
	:: !LANE && count == taken ->
		seen = WORD;
		if
		:: atomic { WORD == seen && count == taken -> count++; taken++ } break
		:: else
		fi
	od;
#ifdef MUTANT_CLOSE_LIFE_LAST
	dead = true;
#endif
	lane_drop();
	atomic { sys_done = sys_done + deferred; deferred = 0; running = 0; closed = true }
}

init {
	atomic {
#ifndef ORDER
		run producer();
#endif
		run producer(); run stopper(); run supervisor();
		run worker(); run looker()
	}
	closed && senders == 0 && looking == 0;
	assert(accepted == handled + dropped && sys_accepted == sys_done);
	assert(runnable == 0 && running == 0)
}

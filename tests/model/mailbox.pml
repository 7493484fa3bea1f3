/* SPDX-License-Identifier: ISC */
/*
 * The mailbox's idle bit, the system lane, stop, and the reuse of the slot: 2 producers of 2
 * messages, one sender of a system message, one stop, one receiver that any of them may schedule.
 * Each atomic is one locked instruction or one load of the code; the names are those of mailbox.c.
 *
 * Checked: the receiver never runs twice at once; at the end every accepted message was handled or
 * dropped, nobody sleeps on a message, and no sender entered a slot after its last look (no
 * deadlock, all asserts hold, in every interleaving; memory is sequentially consistent here, the
 * fences that make it so are listed in docs/memory-ordering.md).
 */
#define PRODUCERS 2
#define EACH	  2

/* head: count of pushes and idle bit; the chain itself is implied by the count. */
byte count = 0, taken = 0;
bool idle = true;
byte sys = 0;		/* length of the system lane */
byte gen = 1;		/* life */
bool dead = false, stop_bit = false;
byte stop_at = 0;
#define WORD (count * 2 + idle)	/* what a compare-and-swap of head compares */

byte runnable = 0;	/* times that the actor is in a run queue */
byte running = 0;
byte accepted = 0, sys_accepted = 0, handled = 0, dropped = 0, sys_done = 0, stale = 0;
byte senders = PRODUCERS + 2; /* still at work */

inline ready() { runnable++; assert(runnable + running <= 1) }

/* mbox_rouse */
inline rouse() {
	if
	:: atomic { idle -> idle = false; ready() }
	:: else -> skip
	fi
}

proctype producer() {
	byte i = 0, seen;
	bool was_idle;
	do
	:: i == EACH -> break
	:: else ->
		/* om_mbox_push: head first, then life, then the compare-and-swap */
		seen = WORD;
retry:		if
		:: dead -> stale++; i++
		:: else ->
			if
			:: atomic { WORD == seen -> was_idle = idle; idle = false;
				count++; accepted++ }
			   if
			   :: was_idle -> atomic { was_idle = false; ready() }
			   :: else -> skip
			   fi;
			   i++
			:: atomic { WORD != seen -> seen = WORD } goto retry
			fi
		fi
	od;
	senders--
}

proctype sys_sender() {
	if
	:: dead -> stale++
	:: else ->
		/* om_mbox_push_sys: push, fence, life again, rouse */
		atomic { sys++; sys_accepted++ };
		if
		:: dead -> atomic { sys_done = sys_done + sys; sys = 0 }	/* mbox_reap */
		:: else -> rouse()
		fi
	fi;
	senders--
}

proctype stopper() {
	/* om_mbox_control: compare-and-swap of life */
	if
	:: atomic { !dead -> stop_bit = true; stop_at = count } rouse()
	:: dead -> skip
	fi;
	senders--
}

/* om_sched_run of whichever thread has the actor in its queue */
active proctype receiver() {
	byte n, seen;
	do
	:: atomic { runnable == 1 -> runnable = 0; running = 1 }
		do
		:: atomic { sys > 0 -> sys_done = sys_done + sys; sys = 0 }	/* om_mbox_take_sys */
		:: else ->
			if
			:: stop_bit && taken == stop_at -> goto close
			:: else -> skip
			fi;
			n = count - taken;	/* mbox_pull */
			if
			:: n > 0 -> atomic { taken++; handled++ }
			:: else ->
				/* om_mbox_rest */
				seen = WORD;
				if
				:: count != taken -> skip
				:: else ->
					/*
					 * The exchange; from here on a sender may schedule us elsewhere.
					 * The last look follows: who finds something takes the bit back.
					 */
					if
					:: atomic { WORD == seen -> idle = true;
						seen = WORD; running = 0 }
						if
						:: sys > 0 || stop_bit ->
							if
							:: atomic { WORD == seen && idle -> idle = false;
								running = 1;
								assert(runnable == 0) }
							:: else -> break
							fi
						:: else -> break
						fi
					:: else -> skip
					fi
				fi
			fi
		od
	od;
close:	/* om_mbox_close: life, then drain, then the exchange of head, then the lane once more */
	dead = true;
	do
	:: atomic { sys > 0 -> sys_done = sys_done + sys; sys = 0 }
	:: atomic { sys == 0 && count > taken -> dropped = dropped + count - taken; taken = count }
	:: sys == 0 ->
		seen = WORD;
		if
		:: atomic { WORD == seen && count == taken -> count++; taken++ } break
		:: else -> skip
		fi
	od;
	atomic { sys_done = sys_done + sys; sys = 0; running = 0; gen++ };
	/* The slot is free.  Nobody may have entered it. */
	(senders == 0);
	assert(accepted == handled + dropped);
	assert(sys_accepted == sys_done);
	assert(runnable == 0)
}

init {
	atomic { run producer(); run producer(); run sys_sender(); run stopper() }
}

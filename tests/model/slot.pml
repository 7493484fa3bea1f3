/* SPDX-License-Identifier: ISC */
/*
 * The next tenant of a slot.  The first actor ends at any moment and a second one moves in, while
 * senders still hold the handle of the first: one on the user lane, one on the system lane, where
 * mbox_reap takes out what nobody will look at.  A third sender writes to the second tenant.  Messages
 * of the system lane have addresses that are used again, so a compare-and-swap of the lane may match
 * although everything has changed.  The idle bit is in mailbox.pml: here the tenants look all the time.
 *
 * Checked, in every interleaving: no tenant handles a message of the other; each accepted message is
 * handled or dropped once, and one to the second tenant, which stays, is handled; a user message never
 * lies in the lane of the other at all.  MUTANT: see mailbox.pml.
 */
#define ADDRESSES 2
#define EACH	  2	/* messages to the second tenant */

byte gen = 1;		/* life */
bool dead = false;
byte count = 0, taken = 0;	/* head and taken of the user lane */
byte user_to[4];	/* addressee by count */
byte top = 0, length = 0;	/* sys: address of the newest, length */
byte below[ADDRESSES + 1], to[ADDRESSES + 1];
bool used[ADDRESSES + 1];
byte accepted[3], done[3];
byte senders = 3;

inline discard(m) { atomic { done[to[m]]++; used[m] = false } }

/* Takes any free address. */
inline message_new(m) {
	if
	:: atomic { !used[1] -> used[1] = true; m = 1 }
	:: atomic { !used[2] -> used[2] = true; m = 2 }
	fi
}

/* The lane was exchanged for an empty one: its messages, oldest first, into list[]. */
inline in_order(head) {
	atomic {
		n = 0;
		do
		:: head == 0 -> break
		:: else -> list[n] = head; n++; head = below[head]
		od
	}
}

/* om_mbox_push_sys up to the exchange; ok: it is in the lane */
inline push_sys(m) {
	ok = false;
	if
	:: gen == to[m] ->
		atomic { saw = top; saw_len = length }
		do
		:: atomic { top == saw && length == saw_len -> below[m] = saw; top = m; length++; ok = true }
			break
		:: atomic { top != saw || length != saw_len -> saw = top; saw_len = length }
		od
	:: gen != to[m]
	fi
}

/* From the second look at life on; what goes back in is looked at again. */
inline second_look(mine) {
	do
	:: gen == mine -> break
	:: else ->
		/* mbox_reap: the lane, then life, then the exchange */
		atomic { saw = top; saw_len = length }
		if
		:: saw == 0 || !dead -> break
		:: else ->
			if
			:: atomic { top == saw && length == saw_len -> top = 0; length = 0 }
				in_order(saw);
				do
				:: n == 0 -> break
				:: else ->
					n--;
					m = list[n]; list[n] = 0;
#ifdef MUTANT_REAP_DROPS_ALL
					ok = false;
#else
					push_sys(m);
#endif
					if
					:: ok
					:: !ok -> assert(to[m] != 2 || dead); discard(m)
					fi
				od
			:: top != saw || length != saw_len
			fi
		fi
	od;
	atomic { m = 0; saw = 0; saw_len = 0; ok = false }
}

inline send_sys(whom) {
	message_new(m);
	to[m] = whom;
	push_sys(m);
	if
	:: ok -> accepted[whom]++; second_look(whom)
	:: else -> used[m] = false
	fi
}

#define SENDER byte m, saw, saw_len, n, list[ADDRESSES]; bool ok

proctype late_sys() {
	SENDER;

	send_sys(1);
	senders--
}

proctype late_user() {
	byte seen = count;	/* mbox_try: head, then life */

	do
	:: gen != 1 || dead -> break
	:: else ->
		if
		:: atomic { count == seen -> user_to[count] = 1; count++; accepted[1]++ } break
		:: atomic { count != seen -> seen = count }
		fi
	od;
	senders--
}

proctype sender() {
	SENDER;
	byte i = 0;

	gen == 2 && !dead;
	do
	:: i == EACH -> break
	:: else -> send_sys(2); i++
	od;
	senders--
}

/* om_mbox_take_sys and dispatch; `mine`: the tenant, 0: nobody (om_mbox_drop_all) */
inline take_sys(mine) {
	if
	:: atomic { top != 0 -> m = top; top = 0; length = 0 }
		in_order(m);
		do
		:: n == 0 -> break
		:: else ->
			n--;
			m = list[n]; list[n] = 0;
#ifdef MUTANT_DELIVERY_WITHOUT_LOOK
			assert(mine == 0 || to[m] == mine);
#endif
			assert(mine != 0 || to[m] != 2);	/* a tenant's message is not dropped */
			discard(m)
		od
	:: else
	fi
}

inline take_user(mine) {
	atomic {
		if
		:: count > taken -> assert(mine == 0 || user_to[taken] == mine);
			done[user_to[taken]]++; taken++
		:: else
		fi
	}
}

active proctype tenants() {
	byte m, n, seen, list[ADDRESSES];

	do
	:: top != 0 -> take_sys(1)
	:: count > taken -> take_user(1)
	:: true -> break
	od;
	/* om_mbox_close */
	atomic { gen = 2; dead = true }
	do
	:: top != 0 -> take_sys(0)
	:: top == 0 && count > taken -> take_user(0)
	:: top == 0 && count == taken ->
#ifdef MUTANT_CLOSE_KEEPS_HEAD
		break
#else
		seen = count;
		if
		:: atomic { count == seen && count == taken -> count++; taken = count } break
		:: else
		fi
#endif
	od;
	take_sys(0);
	/* om_mbox_open */
	taken = count;
	atomic { dead = false; m = 0; seen = 0 }
end:	do
	:: top != 0 -> take_sys(2)
	:: count > taken -> take_user(2)
	od
}

init {
	atomic { run late_sys(); run late_user(); run sender() }
	senders == 0 && top == 0 && count == taken && !used[1] && !used[2];
	assert(accepted[1] == done[1] && accepted[2] == done[2])
}

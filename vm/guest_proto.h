/* SPDX-License-Identifier: ISC */
#ifndef OM_VM_GUEST_PROTO_H
#define OM_VM_GUEST_PROTO_H

/*
 * What host and guest agent say to each other (docs/guest.md).  Both sides include this file.
 *
 * A frame is a 32-bit big-endian length N (1 <= N <= OM_GUEST_FRAME_MAX) and N bytes: one msgpack
 * array whose first element is the type.  The port is a virtio-serial port that only root can open
 * in the guest, so a job cannot speak here; the host trusts nothing of it all the same.
 */
#define OM_GUEST_VERSION 1
#define OM_GUEST_PORT    "org.omerta.agent"

/* Limits that both sides keep.  A frame that breaks one ends the VM. */
#define OM_GUEST_CHUNK_MAX    65536 /* bytes of output, stdin or file in one frame */
#define OM_GUEST_FRAME_MAX    262144 /* holds a START with OM_GUEST_ARGV_MAX bytes of strings */
#define OM_GUEST_ARGV_MAX     196608 /* bytes of all arguments, variables and names of one job */
#define OM_GUEST_ARGS_MAX     1024 /* arguments of one job */
#define OM_GUEST_ENV_MAX      1024 /* environment variables */
#define OM_GUEST_FILES_MAX    256 /* files in; the same for files out */
#define OM_GUEST_PATH_MAX     512 /* bytes of a file's name, relative to the job's directory */
#define OM_GUEST_NAME_MAX     64 /* bytes of an interpreter's name */
#define OM_GUEST_TEXT_MAX     512 /* bytes of an error text */
#define OM_GUEST_DNS_MAX      4 /* name servers */
#define OM_GUEST_LANGS_MAX    16 /* interpreters that HELLO lists */
#define OM_GUEST_STDIN_WINDOW 65536 /* bytes of stdin that may be under way to the job */
#define OM_GUEST_SEED_LEN     64 /* bytes of entropy that the host gives */

/* Host to guest.  Numbers are on the wire: never reused. */
enum om_guest_cmd {
	OM_GUEST_SETUP = 1, /* [1, version, wall clock ns, seed] once, first */
	OM_GUEST_PRIME = 2, /* [2] run the interpreters once so that the next start is fast */
	OM_GUEST_NET = 3, /* [3, "addr/len", gateway, mtu, [dns ...]] */
	OM_GUEST_PUT = 4, /* [4, path, mode, size] a file in; the path "" is the script */
	OM_GUEST_DATA = 5, /* [5, bytes] the next bytes of that file */
	OM_GUEST_START = 6, /* [6, lang, [arg], [[name, value]], [file out], limits] see below */
	OM_GUEST_STDIN = 7, /* [7, bytes] empty bytes: end of file */
	OM_GUEST_STOP = 8, /* [8, grace ms] SIGTERM, after the grace SIGKILL, to all of the job */
};

/* limits: [output bytes, bytes of files out, processes, open files, stdin bytes] */
#define OM_GUEST_LIMIT_COUNT 5

/* Guest to host. */
enum om_guest_msg {
	OM_GUEST_HELLO =
	    65, /* [65, version, boot ms, memory KiB, kernel, [lang ...]] once, first */
	OM_GUEST_PRIMED = 66, /* [66] */
	OM_GUEST_NET_UP = 67, /* [67] */
	OM_GUEST_STARTED = 68, /* [68] the job's process runs */
	OM_GUEST_OUTPUT = 69, /* [69, 1 or 2, bytes] stdout or stderr */
	OM_GUEST_CREDIT = 70, /* [70, n] n more bytes of stdin have gone to the job */
	OM_GUEST_EXIT =
	    71, /* [71, exit status, signal, cpu us, peak KiB, group peak KiB, dropped out, dropped err,
				  oom kills, refused forks, stopped by us] */
	OM_GUEST_FILE =
	    72, /* [72, index, mode, size, error text] a file out; size 0 with an error */
	OM_GUEST_FILE_DATA = 73, /* [73, bytes] the next bytes of that file */
	OM_GUEST_DONE = 74, /* [74] everything is told */
	OM_GUEST_FAILED = 75, /* [75, error code of base/err.h, text] the job could not be run */
};

#endif /* OM_VM_GUEST_PROTO_H */

/* SPDX-License-Identifier: ISC */
#ifndef OM_STORE_LIMITS_H
#define OM_STORE_LIMITS_H

/* How long what is stored may be, in bytes where nothing else is said. */
#define OM_PEER_ID_MAX      64 /* bytes of a peer's or a network's name */
#define OM_JOB_ACTIVITY_MAX 1024 /* what the job does, for lists and the audit */
#define OM_JOB_LANG_MAX     32
#define OM_JOB_REASON_MAX   32 /* reason code, such as "exit_code" */
#define OM_JOB_TEXT_MAX     512 /* the reason in words */
#define OM_JOB_SPEC_MAX     (64u << 20) /* encoded body */
#define OM_JOB_AFTER_MAX    64 /* jobs that one job waits for */
#define OM_JOB_NOTES_MAX    4 /* audit rows written with one new job */
#define OM_OUT_NAME_MAX     255 /* name of an output file */
#define OM_OUT_AT_END       UINT64_MAX
#define OM_OUT_CHUNK_MAX    (1u << 20) /* bytes of one append */
#define OM_AUDIT_EVENT_MAX  32
#define OM_AUDIT_TEXT_MAX   2048 /* details of an audit row; longer ones are cut */
#define OM_ENTRY_KIND_MAX   32
#define OM_ENTRY_KEY_MAX    256
#define OM_ENTRY_VALUE_MAX  (1u << 20)
#define OM_STORE_SCAN_MAX   20000 /* rows one list call looks at before it hands back a cursor */
#define OM_HASH_LEN         32 /* SHA-256 */

#endif /* OM_STORE_LIMITS_H */

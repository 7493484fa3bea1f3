/* SPDX-License-Identifier: ISC */
#include "net/nftables.h"

#include <errno.h>
#include <libnftnl/object.h>
#include <linux/close_range.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <nftables/libnftables.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/parse.h"

/*
 * libnftables keeps tables (marks, services, interfaces) in globals, so loading is one at a time; a
 * load takes about a millisecond.
 *
 * And it waits with select(2), which aborts the process when its socket has number 1024 or more: a
 * daemon with many tunnels, or many clients, would die of it.  So a load runs in a thread with a table
 * of descriptors of its own, empty but for 0 to 2; its namespace is that of the thread that made it.
 * (ThreadSanitizer knows one table only and reports close() here against the same number elsewhere.)
 */
static pthread_mutex_t nft_one = PTHREAD_MUTEX_INITIALIZER;

struct nft_load {
	const char *rules;
	struct om_why *why;
	enum om_err err;
};

static enum om_err
nft_run(const char *rules, struct om_why *why)
{
	struct nft_ctx *ctx = nft_ctx_new(NFT_CTX_DEFAULT); /* opens its socket in this namespace */
	enum om_err err = OM_OK;

	if (ctx == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "nftables: no context");
	}
	if (nft_ctx_buffer_output(ctx) != 0 || nft_ctx_buffer_error(ctx) != 0) {
		err = om_why_set(why, OM_ERR_NOMEM, "nftables: no buffer");
	} else if (nft_run_cmd_from_buffer(ctx, rules) != 0) {
		struct om_str text = om_str_of(nft_ctx_get_error_buffer(ctx)), first = text;

		(void)om_str_next(&text, '\n', &first);
		err = om_why_set(why, OM_ERR_NET, "nftables: %.*s", OM_STR_ARG(first));
	}
	nft_ctx_free(ctx);
	return err;
}

static void *
nft_main(void *arg)
{
	struct nft_load *load = arg;

	if (close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_UNSHARE) != 0) {
		load->err =
		    om_why_errno(load->why, om_err_from_errno(errno), "nftables: own descriptors");
		return NULL;
	}
	load->err = nft_run(load->rules, load->why);
	return NULL;
}

enum om_err
om_nft_load(const char *rules, struct om_why *why)
{
	struct nft_load load = { .rules = rules, .why = why };
	pthread_t thread;
	int errnum;

	(void)pthread_mutex_lock(&nft_one);
	errnum = pthread_create(&thread, NULL, nft_main, &load);
	if (errnum == 0) {
		errnum = pthread_join(thread, NULL);
	}
	(void)pthread_mutex_unlock(&nft_one);
	if (errnum != 0) {
		errno = errnum;
		return om_why_errno(why, om_err_from_errno(errnum), "nftables: thread");
	}
	return load.err;
}

struct counter_list {
	struct om_jobnet_counter *out;
	size_t max;
	size_t count;
};

static enum om_err
counter_on_dump(const struct nlmsghdr *nlh, void *arg)
{
	struct counter_list *list = arg;
	struct om_jobnet_counter *c;
	struct nftnl_obj *obj;
	enum om_err err = OM_OK;

	if (list->count == list->max) {
		return OM_OK;
	}
	obj = nftnl_obj_alloc();
	if (obj == NULL) {
		return OM_ERR_NOMEM;
	}
	if (nftnl_obj_nlmsg_parse(nlh, obj) < 0) {
		err = OM_ERR_NET;
	} else if (nftnl_obj_get_u32(obj, NFTNL_OBJ_TYPE) == NFT_OBJECT_COUNTER) {
		c = &list->out[list->count++];
		(void)snprintf(c->name, sizeof(c->name), "%s",
			       nftnl_obj_get_str(obj, NFTNL_OBJ_NAME));
		c->packets = nftnl_obj_get_u64(obj, NFTNL_OBJ_CTR_PKTS);
		c->bytes = nftnl_obj_get_u64(obj, NFTNL_OBJ_CTR_BYTES);
	}
	nftnl_obj_free(obj);
	return err;
}

enum om_err
om_nft_counters(struct om_nl *nl, struct om_jobnet_counter *out, size_t max, size_t *count,
		struct om_why *why)
{
	struct counter_list list = { .out = out, .max = max };
	struct nfgenmsg *nfg;
	struct nlmsghdr *nlh;
	enum om_err err;
	void *body;

	nlh = om_nl_begin(nl, (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_GETOBJ, 0, sizeof(*nfg), &body);
	nfg = body;
	nfg->nfgen_family = NFPROTO_UNSPEC; /* of all tables */
	nfg->version = NFNETLINK_V0;
	err = om_nl_dump(nl, nlh, counter_on_dump, &list, why, "read the walls' counters");
	*count = list.count;
	return err;
}

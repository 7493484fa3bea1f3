/* SPDX-License-Identifier: ISC */
#include "actors/job_spec.h"
#include "vm/driver.h"

static uint64_t
or_default(bool has, uint64_t value, uint64_t otherwise)
{
	return has ? value : otherwise;
}

static enum om_err
check_range(const char *field, uint64_t value, uint64_t min, uint64_t max, struct om_why *why)
{
	if (value < min || value > max) {
		return om_why_set(why, OM_ERR_INVALID, "%s: %llu is outside %llu to %llu", field,
				  (unsigned long long)value, (unsigned long long)min,
				  (unsigned long long)max);
	}
	return OM_OK;
}

static enum om_err
spec_resources(const struct om_job_submit *m, struct om_job_spec *out, struct om_why *why)
{
	enum om_err err;

	out->cores = or_default(OM_HAS(m, job_submit, cores), m->cores, OM_JOB_CORES_DEFAULT);
	out->mem_mib =
	    or_default(OM_HAS(m, job_submit, mem_mib), m->mem_mib, OM_JOB_MEM_MIB_DEFAULT);
	out->disk_mib =
	    or_default(OM_HAS(m, job_submit, disk_mib), m->disk_mib, OM_JOB_DISK_MIB_DEFAULT);
	out->runtime_s =
	    or_default(OM_HAS(m, job_submit, runtime_s), m->runtime_s, OM_JOB_RUNTIME_S_DEFAULT);

	err = check_range("cores", out->cores, 1, OM_VM_CORES_MAX, why);
	if (err == OM_OK) {
		err =
		    check_range("mem_mib", out->mem_mib, OM_VM_MEM_MIN_MIB, OM_VM_MEM_MAX_MIB, why);
	}
	if (err == OM_OK) {
		err = check_range("disk_mib", out->disk_mib, OM_VM_DISK_MIN_MIB, OM_VM_DISK_MAX_MIB,
				  why);
	}
	if (err == OM_OK) {
		err = check_range("runtime_s", out->runtime_s, 1, 31536000, why);
	}
	return err;
}

/*
 * The guest has one IPv4 address and no IPv6 (docs/network.md): an address that it would not get is
 * refused rather than left out.
 */
static enum om_err
check_guest_addresses(const struct om_wg_config *cfg, struct om_why *why)
{
	const struct om_ip *ip6 = om_wg_config_address(cfg, 6);
	char text[OM_IP_TEXT];

	if (ip6 != NULL) {
		return om_why_set(why, OM_ERR_UNSUPPORTED,
				  "addresses: %s: the guest has no IPv6; give one IPv4 address",
				  om_ip_format(ip6, text));
	}
	return OM_OK;
}

enum om_err
om_job_tunnel_parse(const struct om_vpn_config *m, struct om_wg_config *out, struct om_why *why)
{
	struct om_wg_config_text text = {
		.private_key = m->private_key,
		.peer_public_key = m->peer_public_key,
		.preshared_key = m->preshared_key,
		.endpoint = m->endpoint,
		.addresses = m->addresses.v,
		.address_count = m->addresses.n,
		.allowed_ips = m->allowed_ips.v,
		.allowed_count = m->allowed_ips.n,
		.dns = m->dns.v,
		.dns_count = m->dns.n,
		.keepalive_s = m->keepalive,
		.mtu = m->mtu,
	};
	enum om_err err = om_wg_config_parse(&text, out, why);

	if (err == OM_OK) {
		err = check_guest_addresses(out, why);
	}
	if (err != OM_OK) {
		om_wg_config_wipe(out);
	}
	return err;
}

/* What could not be brought up is not acknowledged. */
static enum om_err
spec_tunnel(const struct om_vpn_config *m, struct om_job_spec *out, struct om_why *why)
{
	struct om_why field = { "" };
	struct om_wg_config cfg;
	enum om_err err = om_job_tunnel_parse(m, &cfg, &field);

	if (err != OM_OK) {
		return om_why_set(why, err, "vpn: %s", field.text);
	}
	out->endpoint = cfg.endpoint;
	om_wg_config_wipe(&cfg);
	return OM_OK;
}

static enum om_err
spec_network(const struct om_job_submit *m, struct om_job_spec *out, struct om_why *why)
{
	bool has_vpn = OM_HAS(m, job_submit, vpn) && m->vpn != NULL;

	if (!OM_HAS(m, job_submit, network) || om_str_is(m->network, "tunnel")) {
		out->tunnel = true;
	} else if (om_str_is(m->network, "none")) {
		out->tunnel = false;
	} else {
		return om_why_set(why, OM_ERR_INVALID,
				  "network: \"%.*s\" is neither tunnel nor none",
				  OM_STR_ARG(m->network));
	}
	if (out->tunnel && !has_vpn) {
		return om_why_set(
		    why, OM_ERR_INVALID,
		    "vpn: required unless network is \"none\" (the VM then has no network card)");
	}
	if (!out->tunnel && has_vpn) {
		return om_why_set(why, OM_ERR_INVALID, "vpn: given together with network \"none\"");
	}
	return out->tunnel ? spec_tunnel(m->vpn, out, why) : OM_OK;
}

static enum om_err
spec_guest(const struct om_job_submit *m, struct om_arena *arena, struct om_job_spec *out,
	   struct om_why *why)
{
	struct om_guest_job *g = &out->guest;
	struct om_guest_env *env;
	struct om_guest_file_in *files;
	size_t i;

	env = om_arena_alloc(arena, (m->env.n + 1) * sizeof(*env));
	files = om_arena_alloc(arena, (m->files.n + 1) * sizeof(*files));
	if (env == NULL || files == NULL) {
		return om_why_set(why, OM_ERR_NOMEM, "job: out of memory");
	}
	for (i = 0; i < m->env.n; i++) {
		env[i].name = m->env.v[i].key;
		env[i].value = m->env.v[i].value;
	}
	for (i = 0; i < m->files.n; i++) {
		const struct om_file *f = &m->files.v[i];

		files[i].path = f->name;
		files[i].mode = OM_HAS(f, file, mode) ? (uint32_t)f->mode : 0644;
		files[i].data = f->data;
	}
	*g = (struct om_guest_job){
		.interpreter = m->lang,
		.script = m->script,
		.args = m->args.v,
		.arg_count = m->args.n,
		.env = env,
		.env_count = m->env.n,
		.stdin_data = m->stdin,
		.files_in = files,
		.file_in_count = m->files.n,
		.files_out = m->outputs.v,
		.file_out_count = m->outputs.n,
		.output_max = OM_HAS(m, job_submit, output_max) ? m->output_max : 0,
		.files_out_max = OM_JOB_FILES_OUT_MAX,
	};
	return om_guest_job_check(g, why);
}

enum om_err
om_job_spec_from(const struct om_job_submit *m, struct om_arena *arena, struct om_job_spec *out,
		 struct om_why *why)
{
	enum om_err err;

	*out = (struct om_job_spec){ 0 };
	err = spec_resources(m, out, why);
	if (err == OM_OK) {
		err = spec_network(m, out, why);
	}
	if (err == OM_OK) {
		err = spec_guest(m, arena, out, why);
	}
	return err;
}

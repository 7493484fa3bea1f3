# SPDX-License-Identifier: ISC
# bash completion of omerta(1).  Installed as .../bash-completion/completions/omerta.
# The unit test client_cli_test checks that every verb and option of the program is here.

_omerta_jobs()
{
	# The first column of a list in a pipe is the whole id.
	COMPREPLY=($(compgen -W "$(omerta list ${1:+--state "$1"} 2>/dev/null | cut -f1)" -- "$cur"))
}

_omerta_verb()
{
	local i word first=
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		-e | --endpoint | --key | --server-key | --reply-timeout) ((i++)) ;;
		-*) ;;
		*)
			if [[ -n $first ]]; then
				case ${first}_$word in
				queue_pause | queue_drain | queue_resume | queue_limit | rules_add | rules_change | \
				rules_remove | rules_enable | rules_disable | rules_test | filter_reset | \
				audit_verify | config_show | config_set | config_unset | config_reload | config_trust | \
				config_untrust | config_trusted | config_trust-peer | config_untrust-peer | \
				config_trusted-peers | config_block | config_unblock | \
				config_blocked) echo "${first}_$word" ;;
				*) echo "$first" ;;
				esac
				return
			fi
			first=$word
			;;
		esac
	done
	echo "$first"
}

_omerta()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} verb opts=
	local common="--endpoint --key --server-key --reply-timeout --json --no-headers --help"
	local states="pending_approval queued provisioning running completed failed timed_out
		cancelled rejected denied expired rogue_killed lost dead"
	COMPREPLY=()
	verb=$(_omerta_verb)
	case $prev in
	--state | -s) COMPREPLY=($(compgen -W "$states" -- "$cur")); return ;;
	--level) COMPREPLY=($(compgen -W "owner network external" -- "$cur")); return ;;
	--network) [[ $verb == submit ]] && COMPREPLY=($(compgen -W "tunnel none" -- "$cur")); return ;;
	--lang | -l) COMPREPLY=($(compgen -W "python sh" -- "$cur")); return ;;
	--kind | -k)
		COMPREPLY=($(compgen -W "resources activity quiet_hours peers networks rate concurrency
			quota" -- "$cur"))
		return
		;;
	--always) COMPREPLY=($(compgen -W "peer network" -- "$cur")); return ;;
	--after | --job) _omerta_jobs; return ;;
	--wg | --stdin | --key | --to) COMPREPLY=($(compgen -f -- "$cur")); return ;;
	esac
	case $verb in
	"")
		COMPREPLY=($(compgen -W "submit list show output wait cancel hold release retry
			purge status ping
			pending approve deny move queue rules filter audit config events top actors trace metrics stop
			call keygen version help $common --version" -- "$cur"))
		return
		;;
	submit)
		opts="--lang --cores --memory --disk --timeout --env --file --no-files --output
			--output-max --stdin --network --wg --bandwidth --job --activity --gpu --hold
			--array --requeue --retries --backoff --not-before --after --after-any --on-behalf
			--network-id --wait --follow --quiet"
		;;
	list) opts="--state --peer --array --since --limit --watch" ;;
	output) opts="--follow --stderr --file --offset --to" ;;
	wait) opts="--from --timeout --follow --quiet" ;;
	cancel) opts="--grace --reason --state --peer --level" ;;
	status) opts="--detailed --watch" ;;
	move) opts="--to --level --reason" ;;
	purge) opts="--state --before --all" ;;
	approve) opts="--always" ;;
	deny | queue_drain) opts="--reason" ;;
	rules_add | rules_change) opts="--kind --priority --disabled" ;;
	rules_test)
		opts="--peer --network --cores --memory --disk --timeout --gpu --activity"
		;;
	audit) opts="--since --job --limit --follow" ;;
	config_show) opts="--origin" ;;
	events) opts="--events-endpoint --job --count" ;;
	stop) opts="--now --timeout --reason" ;;
	trace) opts="--off --dump" ;;
	show | pending | queue | queue_usage | filter | top | actors) opts="--watch" ;;
	esac
	if [[ $cur == -* ]]; then
		COMPREPLY=($(compgen -W "$opts $common" -- "$cur"))
		return
	fi
	case $verb in
	show | output | wait | hold | retry | purge) _omerta_jobs ;;
	cancel) _omerta_jobs ;;
	release | move) _omerta_jobs queued ;;
	trace) _omerta_jobs running ;;
	approve | deny) _omerta_jobs pending_approval ;;
	queue) COMPREPLY=($(compgen -W "pause drain resume limit usage" -- "$cur")) ;;
	rules) COMPREPLY=($(compgen -W "add change remove enable disable test" -- "$cur")) ;;
	filter) COMPREPLY=($(compgen -W "reset" -- "$cur")) ;;
	audit) COMPREPLY=($(compgen -W "verify" -- "$cur")) ;;
	config)
		COMPREPLY=($(compgen -W "show set unset reload trust untrust trusted trust-peer untrust-peer
			trusted-peers block unblock blocked" -- "$cur"))
		;;
	help) COMPREPLY=($(compgen -W "submit list show output wait cancel" -- "$cur")) ;;
	submit | rules_test | keygen) COMPREPLY=($(compgen -f -- "$cur")) ;;
	esac
}

complete -o filenames -F _omerta omerta

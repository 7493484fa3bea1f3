# SPDX-License-Identifier: ISC
# bash completion for omertad
_omertad()
{
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
	local verb=${COMP_WORDS[1]} sub=${COMP_WORDS[2]}
	local verbs='start stop status doctor config pending approve deny rules pause drain resume queue
		filter audit top actors trace events jobs list show cancel hold release retry purge move ping call keygen version'

	case $prev in
	--config | check)
		COMPREPLY=($(compgen -f -- "$cur"))
		return
		;;
	--state-dir | --run-dir | --cache-dir)
		COMPREPLY=($(compgen -d -- "$cur"))
		return
		;;
	--log-level)
		COMPREPLY=($(compgen -W 'debug info warn error' -- "$cur"))
		return
		;;
	esac
	if [ "$COMP_CWORD" -eq 1 ]; then
		COMPREPLY=($(compgen -W "$verbs" -- "$cur"))
		return
	fi
	case $verb in
	start)
		COMPREPLY=($(compgen -W '--config --port --max-jobs --owner-peer --trusted-networks
			--state-dir --run-dir --cache-dir --log-level --set --check --help' -- "$cur"))
		;;
	doctor)
		COMPREPLY=($(compgen -W '--json --config --set' -- "$cur"))
		;;
	stop)
		COMPREPLY=($(compgen -W '--now --timeout --reason' -- "$cur"))
		;;
	config)
		if [ "$COMP_CWORD" -eq 2 ]; then
			COMPREPLY=($(compgen -W 'show check generate set unset reload trust untrust trusted
				trust-peer untrust-peer trusted-peers
				block unblock blocked' -- "$cur"))
		elif [[ $sub == @(set|unset) ]] && [ "$COMP_CWORD" -eq 3 ]; then
			COMPREPLY=($(compgen -W "$(omertad config generate 2>/dev/null | awk '
				/^\[rule/ { exit } /^\[/ { s = substr($1, 2, length($1) - 2) }
				/^#[a-z_]+ = / { print s "." substr($1, 2) }')" -- "$cur"))
		elif [ "$sub" = show ]; then
			COMPREPLY=($(compgen -W '--origin --json' -- "$cur"))
		fi
		;;
	rules)
		[ "$COMP_CWORD" -eq 2 ] && COMPREPLY=($(compgen -W 'list add change remove enable disable
			test' -- "$cur"))
		;;
	queue)
		[ "$COMP_CWORD" -eq 2 ] && COMPREPLY=($(compgen -W 'pause drain resume limit usage' -- "$cur"))
		;;
	audit)
		COMPREPLY=($(compgen -W 'verify --follow --since --job --limit --json' -- "$cur"))
		;;
	status | pending)
		COMPREPLY=($(compgen -W '--json --watch --detailed' -- "$cur"))
		;;
	approve | deny | cancel | hold | release | retry | purge | move | show)
		COMPREPLY=($(compgen -W "$(omertad list --no-headers 2>/dev/null |
			awk '{ print $1 }')" -- "$cur"))
		;;
	esac
}
complete -F _omertad omertad

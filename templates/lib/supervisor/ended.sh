# shellcheck shell=bash
# Whether Slurm runs our Epilog on this node: without it nothing would end what a job's Prolog has started.
#
#   $home/in-force        it does: said by `deploy`, by an Epilog of ours that has run, or by Slurm itself
#   $run_base/no-epilog   it does not, and is not asked again until the node has been up for so many seconds

ask_again_s=60

# True if it does. Asked here and not in the Prolog, which must not wait for slurmctld; in doubt it does not.
epilog_is_in_force() {
    local shown name value
    if [[ -e $home/in-force || -n ${HPCPROXY_CONTRACT-} ]]; then return 0; fi
    shown=$(PATH=$PATH:${slurmd%/sbin/*}/bin:/usr/local/bin timeout -s KILL "$lookup_s" scontrol show config 2>/dev/null </dev/null) || return 1
    while IFS='= ' read -r name value; do
        if [[ $name == Epilog || $name == Epilog\[* ]] && runs_ours "$value"; then
            : >"$home/in-force" || :
            return 0
        fi
    done <<<"$shown"
    read -r value _ </proc/uptime
    printf '%d\n' "$((${value%.*} + ask_again_s))" >"$run_base/no-epilog"
    return 1
}

# True if $1, a path or a pattern as Slurm has it, runs our Epilog.
runs_ours() {
    local IFS='' file
    if [[ -n $site_runs_hooks && $1 == /* ]]; then return 0; fi
    # shellcheck disable=SC2066,SC2086 # to be expanded, as Slurm does
    for file in $1; do
        if [[ $file -ef $our_epilog ]]; then return 0; fi
    done
    return 1
}

# Nothing of this tunnel is left: the last act of a process that nobody else would end.
end_by_itself() {
    leave_group || :
    set +e
    end_tunnel "$key"
    exit 0
}

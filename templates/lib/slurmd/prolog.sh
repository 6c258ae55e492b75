# shellcheck shell=bash
# Starts the tunnel of a job on this node and goes. Root runs it, before the job: see "Prolog and Epilog Guide" of
# Slurm.
#
# What slurmd demands holds by construction: the work is done in a subshell, so no mistake in it reaches the exit code
# (anything but 0 drains the node); nothing is asked that could take long (no name service, no Slurm command, no ssh);
# what is started has none of slurmd's pipes and has left the process group before we return. Comment, partition and
# account are the user's text: compared, never expanded.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin

# True if the job is one of those that get a tunnel: all, or those that meet one of the conditions.
wanted() {
    local word comment=${SLURM_JOB_COMMENT-}
    if [[ -z $policy_comment$policy_option ]] && ((${#policy_partitions[@]} + ${#policy_accounts[@]} == 0)); then return 0; fi
    # Of `#SBATCH --hpcproxy`; only our SPANK plugin sets it.
    if [[ -n $policy_option && -n ${HPCPROXY_ASKED-} ]]; then return 0; fi
    if [[ -n $policy_comment && " ${comment//[$' \t\n,;']/ } " == *" $policy_comment "* ]]; then return 0; fi
    for word in ${policy_partitions[@]+"${policy_partitions[@]}"}; do
        if [[ ${SLURM_JOB_PARTITION-} == "$word" ]]; then return 0; fi
    done
    for word in ${policy_accounts[@]+"${policy_accounts[@]}"}; do
        if [[ ${SLURM_JOB_ACCOUNT-} == "$word" ]]; then return 0; fi
    done
    return 1
}

# Start the supervisor of job $1, restart $2, user $3 and return when it is in a session of its own and on record, so
# that slurmd's signal to our process group does not meet it and the Epilog finds it; at the latest after half a second.
start_supervisor() {
    local line fields tries
    umask 022
    # Here, so that a task that begins before the supervisor does knows that there is something to wait for.
    mkdir -p -- "$run_base/holders"
    : >>"$run_base/holders/$1.$2.said"
    HPCPROXY_HOLDER=1 HPCPROXY_SLURMD=${HPCPROXY_SLURMD:-$PPID} setsid /bin/bash -p "$home/supervisor.sh" "$1" "$2" "$3" &
    for ((tries = 0; tries < 50; tries++)); do
        read -r line 2>/dev/null <"/proc/$!/stat" || return 0
        read -r -a fields <<<"${line##*) }"
        if [[ ${fields[2]} == "$!" && -s $run_base/holders/$1.$2 ]]; then return 0; fi
        sleep 0.01
    done
}

main() {
    local descriptor job=${SLURM_JOB_ID-} restart=${SLURM_JOB_RESTART_COUNT:-${SLURM_RESTART_COUNT:-0}} uid=${SLURM_JOB_UID-} again now
    # slurmd reads its pipe until the last copy of it is closed.
    for descriptor in /proc/self/fd/*; do
        descriptor=${descriptor##*/}
        if [[ $descriptor =~ ^[0-9]+$ ]] && ((descriptor > 2 && descriptor < 200)); then exec {descriptor}>&-; fi
    done 2>/dev/null
    [[ $job =~ ^[0-9]{1,10}$ && $restart =~ ^[0-9]{1,10}$ && $uid =~ ^[1-9][0-9]{0,9}$ ]] || return 0
    [[ -r $home/supervisor.sh ]] || return 0
    # Nothing would end what is started here. The supervisor asks Slurm where it is not on record, but not for each job.
    if [[ ! -e $home/in-force ]] && read -r again <"$run_base/no-epilog" && read -r now _ </proc/uptime &&
        ((${now%.*} < again)); then return 0; fi
    if wanted; then start_supervisor "$job" "$restart" "$uid"; fi
}

(main) </dev/null >/dev/null 2>&1
exit 0

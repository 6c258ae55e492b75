# shellcheck shell=bash
# Starts and ends the supervisors on all nodes of the job this runs in.
#
#   job.sh start [shell | '' SCRIPT]   prints this node's state directory once every node is ready; else says why not, exit code 1.
#                          `out` where none is needed, because the nodes reach the internet by themselves.
#                          `overlap ` stands before it where the job's own steps must be told to share (asks_overlap)
#   job.sh stop            ends them and waits until this node's is gone
#   job.sh status          one line about this node's: `status`, node, JOB.RESTART, pid, state directory, URL and the
#                          content of status.json, between tabs; all but the node empty where there is none
#
# A process of its own (`bash -p`), so that the job script's options, traps and functions are neither seen nor touched.
# HPCPROXY_HOLDER in its environment marks it and what it leaves behind as ours; all other processes of the job are
# those that the tunnel is for (node/life/job_processes.py).

PATH=$PATH:/usr/local/bin:/usr/bin:/bin
umask 077
# The caller's environment is not ours in this: it would change how this is read, and bound how long.
set +o posix
unset TMOUT FUNCNEST

# One line; what follows from it for a job script, and nothing more for a shell.
complain() {
    local consequence='; the job runs on without it'
    if [[ -n $required ]]; then consequence='; the job stops, because the configuration says required'; fi
    if [[ $caller == shell ]]; then consequence=''; fi
    printf 'hpcproxy: no tunnel: %s%s\n' "$1" "$consequence" >&2
}

start() {
    local count sizes outcome=0 overlap='' now_cs begun_cs
    uptime_cs
    begun_cs=$now_cs
    count_nodes || { complain "Slurm's number of nodes of this job is none: ${sizes[*]}" && return 1; }
    if find_state "$job.$restart" && [[ $state != "$run_base"/* ]]; then
        await_others || return 1
    elif [[ -n $state ]] && tell_others_once && await_prologs; then
        tell_prologs
    elif site_gives_none; then
        return 1
    else
        command -v srun >/dev/null || { complain 'srun is not on PATH' && return 1; }
        slurm_version # here, for each step is begun by a shell of its own
        try_step '' "$count" || outcome=$?
        # One address has to serve all nodes; where some have a python3 for the agent and some have not, none uses it.
        if ((outcome == 2)); then
            outcome=0
            try_step ssh "$count" || outcome=$?
        fi
        if ((outcome == 3)); then printf 'out\n' && return 0; fi
        ((outcome == 0)) || return 1
    fi
    if [[ $state != "$run_base"/* ]] && asks_overlap; then overlap='overlap '; fi
    printf '%s%s\n' "$overlap" "$state"
}

stop() {
    local tries step
    local -A values
    find_state "$job.$restart" || return 0
    sum_up
    # The Prolog's ends with the job, by the Epilog.
    if [[ $state == "$run_base"/* ]]; then return 0; fi
    # Not the step that the job's shell knows: that one may have been killed, and this is the one that came after it.
    read_fields "$state/env" || :
    step=${values[step]-}
    if [[ $step =~ ^[0-9]+\.[0-9]+$ ]]; then scancel --quiet --signal=URG "$step" 2>/dev/null || :; fi
    for ((tries = 0; tries < 100; tries++)); do
        supervisor_lives "$state" || return 0
        sleep 0.05
    done
    printf 'hpcproxy: the tunnel is still up; Slurm ends it with the job\n' >&2
}

state='' quiet='' caller=${2-} script=${3-} job=${SLURM_JOB_ID-} restart=${SLURM_RESTART_COUNT:-0}
if ! [[ $job =~ ^[0-9]{1,10}$ && $restart =~ ^[0-9]{1,10}$ ]]; then
    complain 'this is no Slurm job (SLURM_JOB_ID is not set)'
    exit 1
fi
find_state_base
case ${1-} in
    start) start ;;
    stop) stop ;;
    status) status ;;
    *)
        printf 'usage: job.sh start [shell] | stop | status\n' >&2
        exit 2
        ;;
esac

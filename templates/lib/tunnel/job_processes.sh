# shellcheck shell=bash
# The job's other processes on this node, for where ssh itself listens; node/life/job_processes.py and
# node/life/shutdown.py do the same for the agent.

# Set the array `steps` to how lines of /proc/PID/cgroup begin for the steps of a job, by those of a process in one of
# its steps, in the file $1. What Slurm calls the directories above differs: `job_7` up to 25.11, then the job's SLUID.
step_places() {
    local line
    steps=()
    while read -r line; do
        if [[ $line == */step_* ]]; then steps+=(-e "${line%%/step_*}/step_"); fi
    done 2>/dev/null <"$1"
}

# Set `others` to how many processes of this user belong to the job and are not ours: by their environment, or by their
# cgroup, for one that writes its title has none that could be read. A shell of somebody who logged in does not count.
# One that cannot be read counts as not there: a tunnel that stays too long keeps the node from the next job.
count_others() {
    local file line steps
    others=0
    step_places /proc/self/cgroup
    while read -r file; do
        file=${file%/*}
        [[ -O $file ]] || continue
        read -r line 2>/dev/null <"$file/stat" || continue
        case ${line##*) } in Z* | X*) continue ;; esac
        if grep -q -z '^HPCPROXY_HOLDER=' "$file/environ" 2>/dev/null; then continue; fi
        if grep -q /step_extern "$file/cgroup" 2>/dev/null; then continue; fi
        others=$((others + 1))
    done < <(
        grep -l -z -x "SLURM_JOB_ID=$job" /proc/[0-9]*/environ 2>/dev/null || :
        ((!${#steps[@]})) || grep -l -F "${steps[@]}" /proc/[0-9]*/cgroup 2>/dev/null || :
    )
}

# Set `grace` to the seconds that the tunnel may stay after SIGTERM.
grace_seconds() {
    local file key value
    grace=$grace_s
    [[ -z $grace ]] || return 0
    grace=28
    for file in "${SLURM_CONF-}" /etc/slurm/slurm.conf /run/slurm/conf/slurm.conf /etc/slurm-llnl/slurm.conf; do
        [[ -f $file && -r $file ]] || continue
        while IFS='=' read -r key value || [[ -n $key ]]; do
            if [[ ${key,,} =~ ^[[:space:]]*killwait[[:space:]]*$ && $value =~ ^[[:space:]]*([0-9]{1,5})([^[:alnum:]_]|$) ]]; then
                grace=$((10#${BASH_REMATCH[1]} - 2))
            fi
        done <"$file"
        break
    done
    if ((grace < 0)); then grace=0; fi
}

# Wait until no other process of the job is here, at most `grace` seconds, then end the supervisor by SIGURG; return
# without that if the job goes on after all, for SIGTERM is also sent as a warning (preemption with a grace time).
outstay_nobody() {
    local others grace now end quiet asked=''
    trap - EXIT URG HUP
    trap '' TERM INT USR1 USR2
    grace_seconds
    exec {quiet}<> <(:)
    clock
    end=$((now + grace))
    while count_others && ((others)); do
        clock
        if [[ -z $asked ]] && ((now >= end - (grace > 3 ? 2 : grace / 2))); then
            asked=1
            if ((grace)) && job_goes_on; then
                log info 'the job goes on, and so does its tunnel'
                return 0
            fi
        fi
        ((now < end)) || break
        # Not `sleep`, which would live on a while after us.
        read -r -t 0.2 -u "$quiet" || :
    done
    kill -URG "$$"
}

# True if Slurm says that the job is running. In doubt it is at its end.
job_goes_on() {
    local said id status
    hear 2 squeue --noheader --jobs="$job" --format='%A %T' 2>/dev/null </dev/null || :
    while read -r id status; do
        if [[ $id == "$job" ]]; then case $status in RUNNING | SUSPENDED) return 0 ;; esac fi
    done <<<"$said"
    return 1
}

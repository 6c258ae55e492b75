# shellcheck shell=bash
# Runs our Prolog, Epilog and TaskProlog as slurmd does and names every breach of what Slurm demands of them: an empty
# environment, both outputs on one pipe that is read to its end, then a process group that is killed. For a job that
# does not exist, of a user who does not exist, so that no jump host hears of it. Other files that Slurm would run
# beside ours are looked at, never run (beside.sh).
#
#   partition, account   such that the policy gives this job a tunnel
#   given_ms             after which slurmd kills a Prolog or an Epilog; 0: it waits
#
# Answers on stdout, each line with the token: file breach|slow TEXT · done unchanged|failed TEXT

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL

limit_s=10 slow_ms=1000 pipe_ms=300 measures=3 supervisor_s=10
job=999999999 uid=4000000000

answer() {
    printf '%s %s\n' "$token" "$*" 2>/dev/null || :
}

breach() {
    breaches=$((breaches + 1))
    answer "file breach ${1//[[:cntrl:]]/ }"
}

now_ms() {
    local now
    now=$(date +%s%N)
    ms=$((now / 1000000))
}

# Run $1 as slurmd would, and again if it is slow: a busy machine is no breach, and slurmd kills nothing before its
# time. Sets `output`, names what is wrong.
run() {
    local times until_now=$breaches took_ms=0 best_ms=''
    for ((times = 0; times < measures; times++)); do
        run_once "$1"
        ((breaches == until_now)) || return 0
        if [[ -z $best_ms ]] || ((took_ms < best_ms)); then best_ms=$took_ms; fi
        ((took_ms > slow_ms)) || return 0
    done
    if ((given_ms && best_ms * 2 > given_ms)) && [[ $1 != "$task_prolog" ]]; then
        breach "$1 takes more than half of the $given_ms ms after which slurmd kills it, and drains the node"
    else
        answer "file slow $1 took longer than $slow_ms ms, $measures times: the node is slow or busy, and so its jobs begin"
    fi
}

# Run $1 once; sets `output` and `took_ms`.
run_once() {
    local ms began ended group reader code=0 tries
    rm -f -- "$work/pipe" "$work/group"
    mkfifo -- "$work/pipe"
    timeout "$((limit_s + 5))" cat "$work/pipe" >"$work/output" &
    reader=$!
    now_ms && began=$ms
    # shellcheck disable=SC2016 # its own process says who it is; the comment is to stay as it is
    timeout --foreground -s KILL "$limit_s" setsid -w /bin/bash -c 'printf "%s\n" $$ >"$0" && exec env -i "$@"' "$work/group" \
        HPCPROXY_CONTRACT=1 SLURM_JOB_ID="$job" SLURM_JOB_UID="$uid" SLURM_JOB_USER=nobody SLURM_JOB_PARTITION="$partition" \
        SLURM_JOB_ACCOUNT="$account" SLURM_JOB_COMMENT='hpcproxy $(false) `false`' SLURM_NODELIST=localhost HPCPROXY_ASKED=1 "$1" >"$work/pipe" 2>&1 </dev/null || code=$?
    now_ms && ended=$ms
    # slurmd reads to the end first, and kills the group then.
    for ((tries = 0; tries < pipe_ms / 10; tries++)); do
        kill -0 "$reader" 2>/dev/null || break
        sleep 0.01
    done
    if ((ended - began < limit_s * 1000)) && kill -0 "$reader" 2>/dev/null; then
        breach "$1 leaves its output open after its end; slurmd reads on, and the job does not start"
    fi
    if read -r group <"$work/group" && [[ $group =~ ^[0-9]+$ ]]; then kill -KILL -- "-$group" 2>/dev/null; fi
    kill "$reader" 2>/dev/null
    wait "$reader" 2>/dev/null
    output=$(<"$work/output")
    if ((ended - began >= limit_s * 1000)); then
        breach "$1 is not over after $limit_s s; slurmd kills it in the end, and drains the node"
        return 0
    fi
    if ((code)) && [[ $1 == "$task_prolog" ]]; then
        breach "$1 ends with code $code; anything but 0 cancels the task"
    elif ((code)); then
        breach "$1 ends with code $code; anything but 0 drains the node"
    fi
    took_ms=$((ended - began))
}

# What our Prolog starts must outlive it: its first word is on record then.
await_supervisor() {
    local deadline=$((SECONDS + supervisor_s))
    while ((SECONDS < deadline)); do
        if grep -q gave-up "$run_base/holders/$job.0.said" 2>/dev/null; then return 0; fi
        sleep 0.02
    done
    breach "$prolog starts nothing that outlives it; slurmd kills its process group"
}

check_one() {
    if [[ ! -e $1 ]]; then
        breach "$1 is missing"
        return 1
    fi
    [[ -x $1 ]] || breach "$1 has no run bit"
    [[ $(stat -c '%u %A' -- "$1") == "0 -rwxr-xr-x" ]] || breach "$1 must be root's, mode 0755"
}

check_task_prolog() {
    local line
    if [[ -n $site_task_prolog ]] && ! [[ -f $site_task_prolog && -x $site_task_prolog ]]; then
        breach "$site_task_prolog, which ours shall run first, is not there or has no run bit; every task would fail"
        return 0
    fi
    check_one "$task_prolog" && run "$task_prolog" || return 0
    while read -r line; do
        case $line in
            '' | 'export '*=* | 'unset '* | 'print '* | 'hpcproxy: '*) ;;
            *) breach "$task_prolog prints what Slurm does not know: $line" ;;
        esac
    done <<<"$output"
}

main() {
    local breaches=0 output work
    trap '' HUP PIPE
    work=$(mktemp -d) || { answer 'done failed no temporary directory can be made' && return; }
    look_at_slurm
    look_beside
    if check_one "$prolog"; then
        run "$prolog"
        await_supervisor
    fi
    check_task_prolog
    if check_one "$epilog"; then
        run "$epilog"
        run "$epilog"
        [[ ! -e $run_base/holders/$job.0 ]] || breach "$epilog leaves the job's state behind"
    fi
    rm -rf -- "$work"
    if ((breaches)); then
        answer "done failed Slurm's contract is broken: $breaches times"
    else
        answer 'done unchanged'
    fi
}

(main)
exec cat >/dev/null

# shellcheck shell=bash
# Gives every task of a job that has a tunnel the variables that lead there, and takes away those that lead to another
# one. The user runs it, before each task; its stdout is a protocol of Slurm's: `export NAME=value` to the end of the
# line, `unset NAME`, `print text`. Anything but exit code 0 cancels the task, so nothing of ours ends with another.

# Run the site's own TaskProlog as Slurm would: with the environment that was meant for it, and what it prints passes
# line by line. A last line that does not end is ended, for ours follow. `status` is its exit code. (The user's TMOUT
# would bound `read`.)
run_sites() {
    local line words=() entry
    # bash tells its children of options that are its own.
    if [[ $'\n'$(compgen -e) == *$'\n'@(SHELLOPTS|BASHOPTS)* ]]; then
        while IFS= read -r -d '' entry; do
            case $entry in SHELLOPTS=* | BASHOPTS=*) words+=("$entry") ;; esac
        done </proc/self/environ
        words=(/usr/bin/env "${words[@]}")
    fi
    shopt -s lastpipe
    "${words[@]}" "$site_task_prolog" | while TMOUT='' IFS='' read -r line || [[ -n $line ]]; do
        printf '%s\n' "$line"
        take_over "$line"
    done
    status=${PIPESTATUS[0]}
}

# What line $1 of a TaskProlog does to the variables that are our business too, as slurmstepd reads it.
take_over() {
    local verb=${1%% *} name=${1#* } value=''
    name=${name#"${name%%[![:space:]]*}"}
    case $1 in
        export\ *=*) value=${name#*=} name=${name%%=*} ;;
        unset\ *) ;;
        *) return 0 ;;
    esac
    name=${name%"${name##*[![:space:]]}"}
    if [[ " ${names[*]} " != *" $name "* ]]; then return 0; fi
    if [[ $verb == export ]]; then export "$name=$value"; else unset "$name"; fi
}

# Say $1, why ($2: node, layer, words; or nothing) and what then ($3) in the job's own output, once: where its batch
# script begins. A step's stdout may be data that somebody reads; proxy_status tells there. On 24.11 a batch script is
# told no step, on 26.05 its own, -5; whoever is told a number is a step.
tell_job() {
    local node layer words
    if [[ ${SLURM_STEP_ID-} =~ ^[0-9]{1,9}$ ]]; then return 0; fi
    read -r node layer words <<<"$2"
    printf 'print hpcproxy: %s%s; %s\n' "$1" "${2:+: $node: $layer: $words}" "$3"
}

# The same of a tunnel that is late, if an attempt was in vain: one that is only slow is no news.
tell_late() { if [[ -n $failed ]]; then tell_job "your site's tunnel is not up yet" "$failed" 'it goes on trying'; fi; }

# Set `word` to the supervisor's last word: `ready`, `gave-up` with the reason, or nothing yet; and `failed` to why the
# last attempt was in vain.
supervisors_word() {
    local line
    word='' failed=''
    while read -r line; do
        case $line in
            ready\ *) word=ready ;;
            failed\ *) failed=${line#failed } ;;
            gave-up\ *) word=$line ;;
            # Another task has waited already, or this one's time is over by the supervisor's clock.
            late\ *) word=${word:-late} ;;
        esac
    done 2>/dev/null <"$__hpcproxy_run/holders/$1.said"
}

# Wait until the supervisor of $1 (JOB.RESTART) is ready or has given up, at most task_wait_s seconds and the time over
# which the job's nodes spread. True if there is one. The wait that was in vain is left in the job's state: no other
# task of it waits here again.
await_supervisor() {
    local word failed now deadline
    clock
    spread "${SLURM_JOB_NUM_NODES:-${SLURM_NNODES:-1}}" "$jump_count"
    deadline=$((now + task_wait_s + (spread_ms + 999) / 1000))
    if [[ -e $__hpcproxy_run/$1/waited ]]; then deadline=0; fi
    while supervisors_word "$1"; do
        case $word in
            ready) return 0 ;;
            late)
                tell_late
                return 0
                ;;
            gave-up\ *)
                # slurmstepd closes stderr.
                export HPCPROXY_ERROR="${word#gave-up }"
                tell_job 'no tunnel from your site' "$HPCPROXY_ERROR" 'ask its admin'
                return 1
                ;;
        esac
        # The agent holds what comes before ssh is up; where ssh itself listens nothing would be there yet.
        if clock && ((now >= deadline)); then
            : >"$__hpcproxy_run/$1/waited"
            tell_late
            return 0
        fi
        sleep 0.05
    done
    # Nothing was started, or is there any more.
    if [[ ! -e $__hpcproxy_programs/in-force && -e $__hpcproxy_run/no-epilog ]]; then
        export HPCPROXY_ERROR="${SLURMD_NODENAME-} epilog Slurm does not run the Epilog here that would end a tunnel"
        tell_job 'no tunnel from your site' "$HPCPROXY_ERROR" 'ask its admin'
    fi
    return 1
}

# True if the variables lead to the tunnel of this job ($1) already, which its script has started; where ssh itself
# listens it may be away for a moment.
has_its_own() {
    local now deadline
    clock
    deadline=$((now + task_wait_s))
    until __hpcproxy_verified "$1"; do
        if [[ ${HPCPROXY_KEY-} != "$1".* || ${HPCPROXY_URL-} != socks* ]]; then return 1; fi
        if clock && ((now >= deadline)); then return 1; fi
        sleep 0.05
    done
}

# Print what has changed since `before`. A value with a newline would end its line and begin another.
print_changes() {
    local name
    for name in "${kept[@]}"; do
        if [[ ! -v $name ]]; then
            if [[ -n ${before[$name]-} ]]; then printf 'unset %s\n' "$name"; fi
        elif [[ ${before[$name]-} != "=${!name}" && ${!name} != *$'\n'* ]]; then
            printf 'export %s=%s\n' "$name" "${!name}"
        fi
    done
}

main() {
    local -A before=()
    local kept=("${names[@]}" "${names[@]/#/$saved}" "${own_names[@]}")
    local job=${SLURM_JOB_ID-} restart=${SLURM_RESTART_COUNT:-0} name
    for name in "${kept[@]}"; do
        if [[ -v $name ]]; then before[$name]="=${!name}"; fi
    done
    unset HPCPROXY_ERROR
    # In a step of a heterogeneous job SLURM_JOB_ID is the first component's everywhere; the Prolog here knew another.
    # (srun without a batch script still calls components packs, in 22.05.)
    for name in "${!SLURM_JOB_ID_HET_GROUP_@}" "${!SLURM_JOB_ID_PACK_GROUP_@}"; do
        if [[ ${!name} =~ ^[0-9]{1,10}$ && -r $__hpcproxy_run/holders/${!name}.$restart.said ]]; then job=${!name}; fi
    done
    if ! [[ $job =~ ^[0-9]{1,10}$ && $restart =~ ^[0-9]{1,10}$ ]]; then job=none; fi
    # Before 22.05 a Prolog is not told which run of the job it is for.
    if [[ ! -e $__hpcproxy_run/holders/$job.$restart.said && -e $__hpcproxy_run/holders/$job.0.said ]]; then restart=0; fi
    if await_supervisor "$job.$restart" && __hpcproxy_find "$job"; then
        __hpcproxy_export
    elif ! has_its_own "${SLURM_JOB_ID-}"; then
        __hpcproxy_restore
    fi
    print_changes
}

if [[ -n $site_task_prolog ]]; then
    run_sites
    if ((status)); then exit "$status"; fi
fi
# Of one that a signal ends slurmstepd prints all it has said into the task's output, as an error; of a task that is
# cancelled while it begins that would be our exports.
trap 'exit 0' HUP INT QUIT TERM USR1 USR2
set +o posix
PATH=/usr/bin:/bin:/usr/sbin:/sbin
(main) </dev/null 2>/dev/null
exit 0

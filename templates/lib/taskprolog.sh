# shellcheck shell=bash
# Gives every task of a job that has a way out the variables that lead there. The user runs it, before each task; its
# stdout is a protocol of Slurm's: `export NAME=value` to the end of the line, `unset NAME`. Anything but exit code 0
# cancels the task, so nothing of ours ends with another; the site's own TaskProlog keeps its say.

PATH=/usr/bin:/bin:/usr/sbin:/sbin
# Of one that a signal ends slurmstepd prints all it has said into the task's output, as an error; of a task that is
# cancelled while it begins that would be our exports.
trap 'exit 0' HUP INT QUIT TERM USR1 USR2

names=(
    http_proxy HTTP_PROXY https_proxy HTTPS_PROXY no_proxy NO_PROXY all_proxy ALL_PROXY ftp_proxy
    grpc_proxy no_grpc_proxy PIP_PROXY NODE_USE_ENV_PROXY
)

# Set `word` to the holder's last word: `ready`, `gave-up` with the reason, or nothing yet.
holders_word() {
    local line
    word=''
    while read -r line; do
        case $line in
            ready\ *) word=ready ;;
            gave-up\ *) word=$line ;;
            # Another task has waited already, or this one's time is over by the keeper's clock.
            late\ *) word=${word:-late} ;;
        esac
    done 2>/dev/null <"$__hpcproxy_run/holders/$1.said"
}

# Wait until the holder of $1 (JOB.RESTART) is ready or has given up, at most task_wait_s seconds and the time over which
# the job's nodes spread. True if there is one.
await_holder() {
    local word now deadline
    clock
    spread "${SLURM_JOB_NUM_NODES:-${SLURM_NNODES:-1}}" "$jump_count"
    deadline=$((now + task_wait_s + (spread_ms + 999) / 1000))
    [[ -r $__hpcproxy_run/holders/$1.said ]] || return 1
    while holders_word "$1"; do
        case $word in
            ready | late) return 0 ;;
            gave-up\ *)
                # slurmstepd closes stderr, and stdout is not ours to talk on: proxy_status and the system's log say it.
                printf 'export HPCPROXY_ERROR=%s\n' "${word#gave-up }"
                return 1
                ;;
        esac
        # The gate holds what comes before ssh is up; where ssh itself listens nothing would be there yet.
        if clock && ((now >= deadline)); then return 0; fi
        sleep 0.05
    done
}

# Print what __hpcproxy_export has set and unset. A value with a newline would end its line and begin another.
print_exports() {
    local name
    for name in "${names[@]}" "${names[@]/#/HPCPROXY_SAVED_}" HPCPROXY_URL HPCPROXY_KEY; do
        if [[ ! -v $name ]]; then
            printf 'unset %s\n' "$name"
        elif [[ ${!name} != *$'\n'* ]]; then
            printf 'export %s=%s\n' "$name" "${!name}"
        fi
    done
}

main() {
    local job=${SLURM_JOB_ID-} restart=${SLURM_RESTART_COUNT:-0} name
    # In a step of a heterogeneous job that is the first component's everywhere; the Prolog here knew another.
    for name in "${!SLURM_JOB_ID_HET_GROUP_@}"; do
        if [[ ${!name} =~ ^[0-9]{1,10}$ && -r $__hpcproxy_run/holders/${!name}.$restart.said ]]; then job=${!name}; fi
    done
    [[ $job =~ ^[0-9]{1,10}$ && $restart =~ ^[0-9]{1,10}$ ]] || return 0
    await_holder "$job.$restart" || return 0
    __hpcproxy_find "$job" || return 0
    __hpcproxy_export
    print_exports
}

if [[ -n $site_task_prolog ]]; then
    "$site_task_prolog" || exit
fi
(main) </dev/null 2>/dev/null
exit 0

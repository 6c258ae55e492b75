# shellcheck shell=bash
# What a supervisor says: to whoever started it, and in its log.

# One line to whoever started us (gone after a while, which is fine).
say() {
    printf '%s\n' "$*" 2>/dev/null || :
}

# One line in the log, and in the system's where an admin has rolled hpcproxy out; $1 is its level.
log() {
    local when level=$1
    shift
    case $log_level:$level in error:info | error:debug | info:debug) return 0 ;; esac
    printf -v when '%(%Y-%m-%dT%H:%M:%S%z)T' -1
    if [[ -n $state ]]; then printf '%s %s %s %s\n' "$when" "$job" "$node" "$*" 2>/dev/null >>log || :; fi
    [[ -n $syslog ]] || return 0
    # By a process of its own, and not as our child: nothing may wait for it, and `$!` stays what it is.
    (timeout -s KILL 1 logger -t "hpcproxy[$$]" -p "daemon.${level/error/err}" -- "job $job node $node: $*" &) </dev/null >/dev/null 2>&1
}

give_up() {
    say "gave-up $node $1"
    log error "gave up: $1"
    exit 0
}

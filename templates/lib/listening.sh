# shellcheck shell=dash
# Ask the kernel who listens at the way out, without a fork. Sourced; valid in bash and dash.

# True if the user of the state last read (__hpcproxy_uid) listens where it says (__hpcproxy_listen, HEXADDRESS:HEXPORT
# as /proc/net/tcp writes it). A shell reads that table in pieces, and where other sockets come and go meanwhile a line
# can slip through between two of them: only what several looks do not find is not there. In doubt: not ours.
__hpcproxy_listening() {
    __hpcproxy_look || __hpcproxy_look || __hpcproxy_look || __hpcproxy_look || __hpcproxy_look
}

# One look. Listening sockets come first in the table, so the first one that is not listening ends the search.
__hpcproxy_look() {
    local IFS=' ' where state uid
    while read -r _ where _ state _ _ _ uid _; do
        case $state in
            st) ;;
            0A) if [ "$where" = "$__hpcproxy_listen" ] && [ "$uid" = "$__hpcproxy_uid" ]; then return 0; fi ;;
            *) return 1 ;;
        esac
    done 2>/dev/null </proc/net/tcp
    return 1
}

# True once job.sh has one that listens, whose state is then read; else it is said why not. Where ssh itself listens it may
# have been cut off since job.sh saw it: asked again, job.sh waits until its holder has it up. `$1` is `shell` in one.
__hpcproxy_start() {
    local state tries=0 consequence='; the job runs on without it'
    if [ -n "${__hpcproxy_required-}" ]; then consequence='; the job stops, because the configuration says required'; fi
    if [ -n "$1" ]; then consequence=''; fi
    while [ "$tries" -lt 5 ]; do
        state=$(HPCPROXY_HOLDER=1 /bin/bash -p "$__hpcproxy_home/job.sh" start ${1:+"$1"} </dev/null) || return 1
        if __hpcproxy_read "$state" && __hpcproxy_listening; then return 0; fi
        tries=$((tries + 1))
    done
    printf 'hpcproxy: no way out: it was up and does not listen now%s\n' "$consequence" >&2
    return 1
}

# shellcheck shell=dash
# Find the state of a way out that is ours and up on this node, without a fork. Sourced; valid in bash and dash.

# True if the kernel says that user $2 listens at $1 (HEXADDRESS:HEXPORT as /proc/net/tcp writes it). Listening sockets
# come first in that table, so the first one that is not listening ends the search. In doubt: not ours.
__hpcproxy_listening() {
    local IFS=' ' where state uid
    while read -r _ where _ state _ _ _ uid _; do
        case $state in
            st) ;;
            0A) if [ "$where" = "$1" ] && [ "$uid" = "$2" ]; then return 0; fi ;;
            *) return 1 ;;
        esac
    done 2>/dev/null </proc/net/tcp
    return 1
}

# Set __hpcproxy_* from the state of $1 (a job id, or `shell` outside of jobs); false if there is none that is up.
# Only a directory of our own is read: in a shared /tmp anybody could have made one by that name.
__hpcproxy_find() {
    local base directory
    # The holder's own rule (find_state_base).
    base=${TMPDIR:-/tmp}
    if ! [ -d "$base" ] || ! [ -w "$base" ] || [ "${#base}" -gt 48 ]; then base=/tmp; fi
    for directory in "$__hpcproxy_run/$1."* "$base/hpcproxy-$1."*; do
        if [ -d "$directory" ] && ! [ -L "$directory" ] && [ -O "$directory" ] && [ -O "$directory/env" ]; then
            if __hpcproxy_read "$directory" && __hpcproxy_listening "$__hpcproxy_listen" "$__hpcproxy_uid"; then return 0; fi
        fi
    done
    return 1
}

# shellcheck shell=dash
# Find the state of a way out that is ours and up on this node, without a fork. Sourced; valid in bash and dash.

# True if $2 is the state of $1 (a job id, or `shell` outside of jobs) and up; sets __hpcproxy_* from it then. Only a
# directory of our own is read: in a shared /tmp anybody could have made one by that name.
__hpcproxy_try() {
    case ${2##*/} in "$1."* | "hpcproxy-$1."*) ;; *) return 1 ;; esac
    [ -d "$2" ] && ! [ -L "$2" ] && [ -O "$2" ] && [ -O "$2/env" ] && __hpcproxy_read "$2" && __hpcproxy_listening
}

# Set __hpcproxy_* from the state of $1; false if there is none that is up.
__hpcproxy_find() {
    local base directory
    # The one that this shell has from its parents: TMPDIR may be another by now than the holder's.
    if __hpcproxy_try "$1" "${HPCPROXY_STATE-}"; then return 0; fi
    # With bash's failglob a glob that matches nothing is an error and ends the caller's script.
    # shellcheck disable=SC3028
    case :${BASHOPTS-}: in *:failglob:*) return 1 ;; esac
    # The holder's own rule (find_state_base).
    base=${TMPDIR:-/tmp}
    if ! [ -d "$base" ] || ! [ -w "$base" ] || [ "${#base}" -gt 48 ]; then base=/tmp; fi
    for directory in "$__hpcproxy_run/$1."* "$base/hpcproxy-$1."*; do
        if __hpcproxy_try "$1" "$directory"; then return 0; fi
    done
    return 1
}

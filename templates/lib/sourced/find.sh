# shellcheck shell=dash
# Find the state of a tunnel that is ours and up on this node, without a fork. Sourced; valid in bash and dash.

# True if $2 is the state of $1 (a job id, or `shell` outside of jobs) and up, for user $3; sets __hpcproxy_* from it
# then. Only a directory of our own is read: in a shared /tmp anybody could have made one by that name.
__hpcproxy_try() {
    case ${2##*/} in "$1."*) ;; *) return 1 ;; esac
    [ -d "$2" ] && ! [ -L "$2" ] && [ -O "$2" ] && [ -O "$2/env" ] && __hpcproxy_read "$2" || return 1
    # Who serves it is this user, or whom root has named.
    case ${2%/*} in
        "$__hpcproxy_run") ;;
        *) [ "$__hpcproxy_uid" = "$3" ] || return 1 ;;
    esac
    __hpcproxy_listening
}

# Set `uid` to this user's, which not every shell knows.
__hpcproxy_who() {
    local IFS=' 	' key
    while read -r key _ uid _; do
        case $key in Uid:) return 0 ;; esac
    done </proc/self/status
    return 1
}

# Set __hpcproxy_* from the state of $1; false if there is none that is up. __hpcproxy_foreign is one of another version
# then, if there is one.
__hpcproxy_find() {
    local noglob failglob found uid
    __hpcproxy_foreign=''
    __hpcproxy_who || return 1
    # The one that this shell has from its parents: TMPDIR may be another by now than the supervisor's.
    if __hpcproxy_try "$1" "${HPCPROXY_STATE-}" "$uid"; then return 0; fi
    # With noglob a glob is no glob; with bash's failglob one that matches nothing is an error that ends the caller's
    # script.
    noglob='' failglob='' found=1
    case $- in *f*) noglob=1 && set +f ;; esac
    # shellcheck disable=SC3028,SC3044 # both are bash's
    if [ -n "${BASH_VERSION-}" ]; then
        case :${BASHOPTS-}: in *:failglob:*) failglob=1 && shopt -u failglob ;; esac
    fi
    if __hpcproxy_search "$1" "$uid"; then found=0; fi
    if [ -n "$noglob" ]; then set -f; fi
    # shellcheck disable=SC3044
    if [ -n "$failglob" ]; then shopt -s failglob; fi
    return "$found"
}

# The same, of user $2.
__hpcproxy_search() {
    local base home directory
    # Where a supervisor may have made it (make_home): this user's own directories, and nobody else's names. On the
    # job's other nodes it stands in a directory of the same name as that of the node where the shell's parents were.
    base=${TMPDIR:-/tmp} home=${HPCPROXY_STATE-}
    home=${home%/*}
    for directory in "$__hpcproxy_run/$1."* "$home/$1."* "${base%/}/hpcproxy-$2/$1."* "/tmp/hpcproxy-$2/$1."*; do
        if [ -O "${directory%/*}" ] || [ "${directory%/*}" = "$__hpcproxy_run" ]; then
            if ! [ -L "${directory%/*}" ] && __hpcproxy_try "$1" "$directory" "$2"; then return 0; fi
        fi
    done
    return 1
}

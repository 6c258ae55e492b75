# shellcheck shell=dash
# Ask the kernel who listens at the tunnel, without a fork. Sourced; valid in bash and dash.

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

# True if the environment names the tunnel of job $1, or `shell`, and its user listens there: the state, which a
# container may not show, need not be looked up for it.
__hpcproxy_verified() {
    case ${HPCPROXY_KEY-} in "$1".*) ;; *) return 1 ;; esac
    case ${HPCPROXY_LISTEN-} in ?*' '?*) ;; *) return 1 ;; esac
    __hpcproxy_uid=${HPCPROXY_LISTEN%% *} __hpcproxy_listen=${HPCPROXY_LISTEN#* }
    __hpcproxy_listening
}

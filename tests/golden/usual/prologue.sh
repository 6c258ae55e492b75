# shellcheck shell=dash
# hpcproxy prologue.sh: rendered from the configuration; a change belongs there, not here.
__hpcproxy_home=/home/alice/.hpcproxy
__hpcproxy_replace=''
__hpcproxy_required=''

# shellcheck shell=dash
# Bring the caller's proxy settings back. Sourced; valid in bash and dash.

# The caller's values are what HPCPROXY_SAVED_* kept; does nothing where the way out is not on.
__hpcproxy_restore() {
    if [ -z "${HPCPROXY_URL-}" ]; then return 0; fi
    unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY no_proxy NO_PROXY
    unset ftp_proxy grpc_proxy no_grpc_proxy PIP_PROXY NODE_USE_ENV_PROXY
    if [ -n "${HPCPROXY_SAVED_http_proxy+x}" ]; then export http_proxy="$HPCPROXY_SAVED_http_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_HTTP_PROXY+x}" ]; then export HTTP_PROXY="$HPCPROXY_SAVED_HTTP_PROXY"; fi
    if [ -n "${HPCPROXY_SAVED_https_proxy+x}" ]; then export https_proxy="$HPCPROXY_SAVED_https_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_HTTPS_PROXY+x}" ]; then export HTTPS_PROXY="$HPCPROXY_SAVED_HTTPS_PROXY"; fi
    if [ -n "${HPCPROXY_SAVED_all_proxy+x}" ]; then export all_proxy="$HPCPROXY_SAVED_all_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_ALL_PROXY+x}" ]; then export ALL_PROXY="$HPCPROXY_SAVED_ALL_PROXY"; fi
    if [ -n "${HPCPROXY_SAVED_no_proxy+x}" ]; then export no_proxy="$HPCPROXY_SAVED_no_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_NO_PROXY+x}" ]; then export NO_PROXY="$HPCPROXY_SAVED_NO_PROXY"; fi
    if [ -n "${HPCPROXY_SAVED_ftp_proxy+x}" ]; then export ftp_proxy="$HPCPROXY_SAVED_ftp_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_grpc_proxy+x}" ]; then export grpc_proxy="$HPCPROXY_SAVED_grpc_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_no_grpc_proxy+x}" ]; then export no_grpc_proxy="$HPCPROXY_SAVED_no_grpc_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_PIP_PROXY+x}" ]; then export PIP_PROXY="$HPCPROXY_SAVED_PIP_PROXY"; fi
    if [ -n "${HPCPROXY_SAVED_NODE_USE_ENV_PROXY+x}" ]; then
        export NODE_USE_ENV_PROXY="$HPCPROXY_SAVED_NODE_USE_ENV_PROXY"
    fi
    unset HPCPROXY_SAVED_http_proxy HPCPROXY_SAVED_HTTP_PROXY HPCPROXY_SAVED_https_proxy HPCPROXY_SAVED_HTTPS_PROXY
    unset HPCPROXY_SAVED_all_proxy HPCPROXY_SAVED_ALL_PROXY HPCPROXY_SAVED_no_proxy HPCPROXY_SAVED_NO_PROXY
    unset HPCPROXY_SAVED_ftp_proxy HPCPROXY_SAVED_grpc_proxy HPCPROXY_SAVED_no_grpc_proxy HPCPROXY_SAVED_PIP_PROXY
    unset HPCPROXY_SAVED_NODE_USE_ENV_PROXY
    unset HPCPROXY_URL HPCPROXY_KEY HPCPROXY_STEP HPCPROXY_STATE
}

# shellcheck shell=dash
# Point this shell's programs at the way out. Sourced; valid in bash and dash.

# The caller's values are kept as HPCPROXY_SAVED_*, exported so that a child shell can turn the way out off as well.
__hpcproxy_save() {
    if [ -n "${http_proxy+x}" ]; then export HPCPROXY_SAVED_http_proxy="$http_proxy"; fi
    if [ -n "${HTTP_PROXY+x}" ]; then export HPCPROXY_SAVED_HTTP_PROXY="$HTTP_PROXY"; fi
    if [ -n "${https_proxy+x}" ]; then export HPCPROXY_SAVED_https_proxy="$https_proxy"; fi
    if [ -n "${HTTPS_PROXY+x}" ]; then export HPCPROXY_SAVED_HTTPS_PROXY="$HTTPS_PROXY"; fi
    if [ -n "${all_proxy+x}" ]; then export HPCPROXY_SAVED_all_proxy="$all_proxy"; fi
    if [ -n "${ALL_PROXY+x}" ]; then export HPCPROXY_SAVED_ALL_PROXY="$ALL_PROXY"; fi
    if [ -n "${no_proxy+x}" ]; then export HPCPROXY_SAVED_no_proxy="$no_proxy"; fi
    if [ -n "${NO_PROXY+x}" ]; then export HPCPROXY_SAVED_NO_PROXY="$NO_PROXY"; fi
    if [ -n "${ftp_proxy+x}" ]; then export HPCPROXY_SAVED_ftp_proxy="$ftp_proxy"; fi
    if [ -n "${grpc_proxy+x}" ]; then export HPCPROXY_SAVED_grpc_proxy="$grpc_proxy"; fi
    if [ -n "${no_grpc_proxy+x}" ]; then export HPCPROXY_SAVED_no_grpc_proxy="$no_grpc_proxy"; fi
    if [ -n "${PIP_PROXY+x}" ]; then export HPCPROXY_SAVED_PIP_PROXY="$PIP_PROXY"; fi
    if [ -n "${NODE_USE_ENV_PROXY+x}" ]; then export HPCPROXY_SAVED_NODE_USE_ENV_PROXY="$NODE_USE_ENV_PROXY"; fi
}

# Set __hpcproxy_* from the env file in directory $1, a value a line. It is read, not sourced: nothing in it can run.
__hpcproxy_read() {
    {
        read -r __hpcproxy_key
        read -r __hpcproxy_step
        read -r __hpcproxy_uid
        read -r __hpcproxy_listen
        read -r __hpcproxy_url
        read -r __hpcproxy_no_proxy
    } <"$1/env"
    __hpcproxy_state=$1
}

# True if the caller's environment names a proxy that is not on loopback: one of the site's, and the site's rule. (One
# on loopback is the old recipe by hand, or another tunnel that leads nowhere from here.)
__hpcproxy_site_proxy() {
    local value
    for value in "${http_proxy-}" "${HTTP_PROXY-}" "${https_proxy-}" "${HTTPS_PROXY-}" "${all_proxy-}" "${ALL_PROXY-}"; do
        value=${value#*://}
        value=${value##*@}
        case $value in
            '' | 127.* | '[::1]'*) ;;
            [Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt] | [Ll][Oo][Cc][Aa][Ll][Hh][Oo][Ss][Tt][:/]*) ;;
            *) return 0 ;;
        esac
    done
    return 1
}

# Export what __hpcproxy_read has set. The caller's own no_proxy stays in force, and so does a proxy of the site's.
__hpcproxy_export() {
    __hpcproxy_restore
    __hpcproxy_save
    local direct
    direct=${no_proxy:-${NO_PROXY-}}
    direct=$__hpcproxy_no_proxy${direct:+,$direct}
    export no_proxy="$direct" NO_PROXY="$direct"
    export HPCPROXY_URL="$__hpcproxy_url" HPCPROXY_KEY="$__hpcproxy_key" HPCPROXY_STEP="$__hpcproxy_step"
    export HPCPROXY_STATE="$__hpcproxy_state"
    if [ -z "$__hpcproxy_replace" ] && __hpcproxy_site_proxy; then return 0; fi
    export http_proxy="$__hpcproxy_url" HTTP_PROXY="$__hpcproxy_url"
    export https_proxy="$__hpcproxy_url" HTTPS_PROXY="$__hpcproxy_url"
    # A SOCKS all_proxy kills httpx at import; the others would override what is exported above.
    unset all_proxy ALL_PROXY ftp_proxy grpc_proxy no_grpc_proxy PIP_PROXY
    # Node reads proxy variables only if told to, and its fetch dies of a SOCKS one.
    case $__hpcproxy_url in
        http:*) export NODE_USE_ENV_PROXY=1 ;;
        *) unset NODE_USE_ENV_PROXY ;;
    esac
}

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

# shellcheck shell=dash
# Say what a person should know of the environment just exported. Sourced; valid in bash and dash.

# After __hpcproxy_export: if it left a proxy of the site's in force, say so; false if there is none.
__hpcproxy_tell() {
    if __hpcproxy_site_proxy; then
        printf 'hpcproxy: the proxy that your environment names stays in force (replace_proxy: true changes that)\n' >&2
        return 0
    fi
    return 1
}

# shellcheck shell=dash
# Start the way out on every node of this job and use it. Sourced by a job script; valid in bash and dash.
# All the work is done by a process of its own, so that nothing of the job script's shell is touched but the variables.

# False only if the job is to be stopped.
__hpcproxy_begin() {
    local state
    if state=$(HPCPROXY_HOLDER=1 /bin/bash -p "$__hpcproxy_home/job.sh" start </dev/null) && __hpcproxy_read "$state" &&
        __hpcproxy_listening; then
        __hpcproxy_export
        __hpcproxy_tell || :
        return 0
    fi
    # What a login shell exported for its own tunnel leads nowhere here.
    __hpcproxy_restore
    [ -z "$__hpcproxy_required" ]
}

if ! __hpcproxy_begin; then exit 1; fi

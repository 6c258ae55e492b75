# shellcheck shell=dash
# hpcproxy bashrc.sh: rendered from the configuration; a change belongs there, not here.
__hpcproxy_home=/home/alice/.hpcproxy
__hpcproxy_run=/run/hpcproxy
__hpcproxy_replace=''
__hpcproxy_autostart=''

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

# shellcheck shell=dash
# proxy_on, proxy_off, proxy_status. Sourced by interactive shells; silent; valid in bash and dash.

# Set __hpcproxy_want to the job this shell is in, or to `shell` outside of one.
__hpcproxy_where() {
    case ${SLURM_JOB_ID-} in
        '' | *[!0-9]*) __hpcproxy_want=shell ;;
        *) __hpcproxy_want=$SLURM_JOB_ID ;;
    esac
}

proxy_on() {
    local state
    __hpcproxy_where
    if ! __hpcproxy_find "$__hpcproxy_want"; then
        if [ "$__hpcproxy_want" = shell ]; then
            printf 'hpcproxy: no tunnel of yours is up on this machine; start one with: hpcproxy up\n' >&2
            return 1
        fi
        if ! state=$(HPCPROXY_HOLDER=1 /bin/bash -p "$__hpcproxy_home/job.sh" start shell </dev/null); then return 1; fi
        if ! __hpcproxy_read "$state" || ! __hpcproxy_listening; then return 1; fi
    fi
    __hpcproxy_export
    if __hpcproxy_tell; then return 1; fi
    printf 'hpcproxy: on, %s\n' "$HPCPROXY_URL"
}

proxy_off() {
    if [ -z "${HPCPROXY_URL-}" ]; then
        printf 'hpcproxy: off\n'
        return 0
    fi
    __hpcproxy_restore
    printf 'hpcproxy: off; your own proxy settings are back\n'
}

# Set __hpcproxy_value to what the holder's status.json, in __hpcproxy_json, has for $1; false if it has nothing.
__hpcproxy_field() {
    case $__hpcproxy_json in *"\"$1\": "*) ;; *) return 1 ;; esac
    __hpcproxy_value=${__hpcproxy_json#*"\"$1\": "}
    case $__hpcproxy_value in
        null*) return 1 ;;
        '"'*)
            __hpcproxy_value=${__hpcproxy_value#?}
            __hpcproxy_value=${__hpcproxy_value%%'"'*}
            ;;
        *) __hpcproxy_value=${__hpcproxy_value%%[,\}]*} ;;
    esac
}

# Print what the holder says of itself, behind its address: through which jump host, since when, how often anew; false if
# ssh is away at this moment. A service account's status is not ours to read: then there is nothing to add.
__hpcproxy_describe() {
    local __hpcproxy_json __hpcproxy_value
    __hpcproxy_json=''
    read -r __hpcproxy_json 2>/dev/null <"$__hpcproxy_state/status.json" || :
    if __hpcproxy_field ready && [ "$__hpcproxy_value" = false ]; then
        if ! __hpcproxy_field last_error; then __hpcproxy_value='ssh is not up yet'; fi
        printf ', but cut off at the moment: %s' "$__hpcproxy_value"
        return 1
    fi
    if __hpcproxy_field jump; then printf ' through %s' "$__hpcproxy_value"; fi
    if __hpcproxy_field since; then printf ', up for %d s' "$(($(date +%s) - ${__hpcproxy_value%%.*}))"; fi
    if __hpcproxy_field reconnects; then printf ', %s reconnects' "$__hpcproxy_value"; fi
    if __hpcproxy_field requests; then printf ', %s requests' "$__hpcproxy_value"; fi
}

# One line, and true only if programs of this shell use a way out that is up.
proxy_status() {
    __hpcproxy_where
    if [ -z "${HPCPROXY_URL-}" ]; then
        if __hpcproxy_find "$__hpcproxy_want"; then
            printf 'hpcproxy: off in this shell; a way out is up at %s (proxy_on uses it)\n' "$__hpcproxy_url"
        elif [ -n "${HPCPROXY_ERROR-}" ]; then
            printf 'hpcproxy: off, no way out: %s\n' "$HPCPROXY_ERROR"
        else
            printf 'hpcproxy: off\n'
        fi
        return 1
    fi
    if __hpcproxy_find "$__hpcproxy_want"; then
        if __hpcproxy_tell 2>&1; then return 1; fi
        local __hpcproxy_up
        __hpcproxy_up=0
        printf 'hpcproxy: on, %s' "$HPCPROXY_URL"
        __hpcproxy_describe || __hpcproxy_up=1
        printf '\n'
        return "$__hpcproxy_up"
    fi
    printf 'hpcproxy: down, nothing of yours listens at %s now\n' "$HPCPROXY_URL"
    return 1
}

# What a new interactive shell does: use a way out that is up and ours, forget one that is gone.
__hpcproxy_enter() {
    __hpcproxy_where
    case ${HPCPROXY_KEY-} in
        "$__hpcproxy_want".*)
            if [ "$__hpcproxy_want" != shell ]; then return 0; fi
            ;;
    esac
    if __hpcproxy_find "$__hpcproxy_want"; then
        __hpcproxy_export
        return 0
    fi
    __hpcproxy_restore
    if [ -n "$__hpcproxy_autostart" ] && [ "$__hpcproxy_want" != shell ]; then
        proxy_on >/dev/null || :
    fi
}

case $- in
    *i*) __hpcproxy_enter ;;
esac

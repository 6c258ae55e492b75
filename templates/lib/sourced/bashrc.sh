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
    __hpcproxy_where
    if ! __hpcproxy_find "$__hpcproxy_want"; then
        if __hpcproxy_tell_foreign >&2; then return 1; fi
        if [ "$__hpcproxy_want" = shell ]; then
            printf 'hpcproxy: no tunnel of yours is up on this machine; start one with: hpcproxy up\n' >&2
            return 1
        fi
        if ! __hpcproxy_start shell; then
            if [ -z "$__hpcproxy_out" ]; then return 1; fi
            __hpcproxy_restore
            return 0
        fi
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

# True if a tunnel is there that another version of hpcproxy has started, after __hpcproxy_find; it is said then.
__hpcproxy_tell_foreign() {
    if [ -z "$__hpcproxy_foreign" ]; then return 1; fi
    printf 'hpcproxy: another version of hpcproxy has started the tunnel in %s; it is not used\n' "$__hpcproxy_foreign"
}

# Set __hpcproxy_value to what the supervisor's status has for $1, `name=value` a line; false if it has nothing, or is
# of another version.
__hpcproxy_field() {
    local line version
    version='' __hpcproxy_value=''
    while IFS='' read -r line; do
        case $line in version=*) version=${line#*=} ;; esac
        case $line in "$1="*) __hpcproxy_value=${line#*=} ;; esac
    done 2>/dev/null <"$__hpcproxy_state/status"
    [ "$version" = 1 ] && [ -n "$__hpcproxy_value" ]
}

# Print what the supervisor says of itself, behind its address: through which jump host, since when, how often anew;
# false if ssh is away at this moment. A service account's status is not ours to read: then there is nothing to add.
__hpcproxy_describe() {
    local __hpcproxy_value
    if ! [ -e "$__hpcproxy_state/status" ]; then return 0; fi
    if ! __hpcproxy_field version; then
        printf ', and what it says of itself another version of hpcproxy has written'
        return 0
    fi
    if __hpcproxy_field ready && [ "$__hpcproxy_value" = false ]; then
        if ! __hpcproxy_field last_error; then __hpcproxy_value='ssh is not up yet'; fi
        printf ', but cut off at the moment: %s' "$__hpcproxy_value"
        return 1
    fi
    if __hpcproxy_field jump; then printf ' through %s' "$__hpcproxy_value"; fi
    if __hpcproxy_field since; then
        __hpcproxy_value=${__hpcproxy_value%%.*}
        # In an arithmetic expression of bash's a value is a program.
        case $__hpcproxy_value in
            '' | 0* | *[!0-9]* | ????????????*) ;;
            *) printf ', up for %d s' "$(($(date +%s) - __hpcproxy_value))" ;;
        esac
    fi
    if __hpcproxy_field reconnects; then printf ', %s reconnects' "$__hpcproxy_value"; fi
    if __hpcproxy_field requests; then printf ', %s requests' "$__hpcproxy_value"; fi
}

# One line, and true only if programs of this shell use a tunnel that is up.
proxy_status() {
    __hpcproxy_where
    if [ -z "${HPCPROXY_URL-}" ]; then
        if __hpcproxy_find "$__hpcproxy_want"; then
            printf 'hpcproxy: off in this shell; a tunnel is up at %s (proxy_on uses it)\n' "$__hpcproxy_url"
        elif __hpcproxy_tell_foreign; then
            :
        elif [ -n "${HPCPROXY_ERROR-}" ]; then
            printf 'hpcproxy: off, no tunnel: %s\n' "$HPCPROXY_ERROR"
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
    if __hpcproxy_tell_foreign; then return 1; fi
    printf 'hpcproxy: down, nothing of yours listens at %s now\n' "$HPCPROXY_URL"
    return 1
}

# What a new shell does: keep a tunnel that is ours and up, forget one that is not. An interactive one also uses one
# that it finds.
__hpcproxy_enter() {
    __hpcproxy_where
    if __hpcproxy_verified "$__hpcproxy_want"; then return 0; fi
    case $- in
        *i*) ;;
        *)
            __hpcproxy_restore
            return 0
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

__hpcproxy_enter

# shellcheck shell=bash
# One login to each jump host, on trial.

# True if a channel to $2 through jump host number $1 shows that it lets through: it tried to connect, whether it could or
# not. `out` is how ssh ended, `text` its log.
try_login() {
    ssh_command "$1" -o ControlMaster=no -o ControlPath=none "${@:3}" -W "$2"
    out=0
    : >ssh.log
    (
        trap '' XFSZ
        ulimit -f 4096
        bounded "$((connect_timeout_s + 15))" "${command[@]}" </dev/null >/dev/null 2>ssh.talk
    ) || out=$?
    if ((out == 137)); then out=124; fi
    read_text ssh.log
    ((out == 0)) || tried_to_connect '' "$text"
}

probe() {
    local jump out text
    if [[ -z $uses_ssh ]]; then return 0; fi
    has_ssh || { printf 'failed ssh there is no ssh on this machine\n' && return 0; }
    trap 'clean_up $?' EXIT
    make_directory probe || { printf 'failed state no directory can be made in %s\n' "$state_base" && return 0; }
    if ((${#jump_names[@]})); then learn; fi
    if [[ -n $old_ssh ]]; then printf 'failed ssh %s\n' "$old_ssh" && return 0; fi
    for jump in "${!jump_names[@]}"; do
        probe_jump "$jump"
    done
}

say_ok() {
    local note
    note_certificates
    printf 'ok %s\n' "${jump_names[$1]}${note:+ $note}"
}

probe_jump() {
    if try_login "$1" "$probe_target"; then
        say_ok "$1"
        return 0
    fi
    # One that lets through to some ports only refuses at once what it does not; in time it has tried.
    if [[ $text == *'open failed: administratively prohibited'* ]]; then
        if try_login "$1" "$probe_target_https" || [[ $out == 124 && $text == *'Authenticated to '* ]]; then
            say_ok "$1"
            return 0
        fi
    fi
    if [[ $out == 124 && $text != *'Authenticated to '* ]]; then printf 'Connection to it timed out\n' >>ssh.log; fi
    if [[ -n $identity && ! -r $identity ]]; then
        layer=key reason="the key $identity does not exist or cannot be read"
    else
        read_reason ssh.log "open failed: connect failed" ssh.talk
    fi
    printf 'failed %s %s: %s\n' "$layer" "${jump_names[$1]}" "$reason"
}

# shellcheck shell=bash
# What ssh would log in with and may be gone before the job is: a certificate ends, an ssh-agent goes, and nobody is
# there to type a passphrase.

# Set `note` to the first of it, or to nothing.
note_credentials() {
    note_certificates
    if [[ -z $note ]]; then note_agent; fi
}

# Set `note` to a sentence if only an ssh-agent has a key that ssh can use, as far as files tell.
note_agent() {
    local candidates certificates account at key locked='' reason='' plain_text=''
    if keys_are_off; then return 0; fi
    for key in ${candidates[@]+"${candidates[@]}"}; do
        at_home "$key"
        if [[ $at == *%* ]]; then return 0; fi
        [[ -r $at ]] || continue
        needs_passphrase "$at" || return 0
        locked=${locked:-$at}
    done
    if [[ -n ${of_step-} || -z $locked ]]; then
        [[ -n ${SSH_AUTH_SOCK-} ]] && ssh-add -l >/dev/null 2>&1 </dev/null || return 0
    fi
    tidy "$locked"
    if [[ -n ${of_step-} ]]; then
        note="only the ssh-agent has a key that can be used${locked:+ ($plain_text has a passphrase)}, and it may end before the job does: a tunnel that breaks after that does not come back"
    elif [[ -n $locked ]]; then
        note="the key $plain_text has a passphrase, which nobody can type in a job, and no job has this machine's ssh-agent: use a key without one, for this"
    else
        note="the only keys are in this machine's ssh-agent, which no job has: use a key without a passphrase, for this"
    fi
}

# Print the same of a job that is submitted now and may run for $1 seconds; 0: it is not known how long.
credentials() {
    local note asked_limit_s=$1
    if [[ -z $uses_ssh ]] || ((${#jump_names[@]} == 0)) || ! has_ssh; then return 0; fi
    learn
    note_credentials
    if [[ -n $note ]]; then printf '%s\n' "$note"; fi
}

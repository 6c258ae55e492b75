# shellcheck shell=bash
# What ssh's words mean. The tables failure_texts, _layers, _reasons, _permanent stand at the top of the script.

# Set layer, reason and permanent from the file $1 that holds ssh's stderr. Lines that hold $2 tell of a channel that was
# not opened, our own probe's or a program's, and nothing of the connection.
read_reason() {
    local text words='' line last='' i
    read_text "$1"
    while read -r line; do
        [[ -n $line && $line != *"$2"* ]] || continue
        words+=$line$'\n' last=${line//[[:cntrl:]]/}
    done <<<"$text"
    for i in "${!failure_texts[@]}"; do
        if [[ $words == *"${failure_texts[i]}"* ]]; then
            layer=${failure_layers[i]} reason=${failure_reasons[i]} permanent=${failure_permanent[i]}
            [[ $layer == key ]] && look_at_key
            return 0
        fi
    done
    layer=ssh reason=${last:-ssh was ended} permanent=0
}

# True if the private key in the file $1 is encrypted, as its first lines say: OpenSSH's own format by the cipher's name
# (PROTOCOL.key, in base64), PEM in words. Of a format unknown here the key is taken for a plain one.
needs_passphrase() {
    local line number=0
    while ((number++ < 3)) && read -r line; do
        case $line in
            *ENCRYPTED*) return 0 ;;
            b3BlbnNzaC1rZXktdjEAAAAABG5vbmU*) return 1 ;;
            b3BlbnNzaC1rZXktdjEA*) return 0 ;;
        esac
    done <"$1"
    return 1
}

# A refused key has causes on this side too; say the one that holds.
look_at_key() {
    local candidates=() key line readable='' locked=''
    if [[ -n ${SSH_AUTH_SOCK-} ]] && ssh-add -l >/dev/null 2>&1 </dev/null; then return 0; fi
    if [[ -n $identity ]]; then
        candidates=("$identity")
    else
        while read -r line key; do
            if [[ $line == identityfile ]]; then candidates+=("${key/#\~\//$HOME/}"); fi
        done <<<"$ssh_says"
    fi
    for key in ${candidates[@]+"${candidates[@]}"}; do
        [[ -r $key ]] || continue
        readable=$key
        needs_passphrase "$key" || return 0
        locked=${locked:-$key}
    done
    if [[ -z $readable ]]; then
        reason="no key to log in with: ${identity:-${candidates[*]}} does not exist or cannot be read"
    else
        reason="the key $locked has a passphrase and no agent is there to unlock it; use a key without one, or an agent"
    fi
}

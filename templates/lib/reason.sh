# shellcheck shell=bash
# What ssh's words mean. The tables failure_texts, _layers, _reasons, _permanent stand at the top of the script.

# Set layer, reason and permanent from the file $1 that holds ssh's stderr.
read_reason() {
    local text words='' line last='' i
    read_text "$1"
    while read -r line; do
        # A channel that was not opened, our own probe's for one, says nothing about the connection, unless by rule.
        [[ -n $line && $line != *'open failed: connect failed'* ]] || continue
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

# A refused key has causes on this side too; say the one that holds.
look_at_key() {
    local candidates=("$HOME"/.ssh/id_ed25519 "$HOME"/.ssh/id_ecdsa "$HOME"/.ssh/id_rsa "$HOME"/.ssh/id_*_sk) key readable=0
    [[ -n $identity ]] && candidates=("$identity")
    for key in "${candidates[@]}"; do
        [[ -r $key ]] || continue
        readable=1
        # ssh-keygen tells a key that needs a passphrase from one that is merely refused, and asks nobody.
        if ! ssh-keygen -y -P '' -f "$key" >/dev/null 2>&1 </dev/null && ! ssh-add -l >/dev/null 2>&1 </dev/null; then
            reason="the key $key has a passphrase and no agent is there to unlock it; use a key without one, or an agent"
            return 0
        fi
    done
    if ((!readable)) && ! ssh-add -l >/dev/null 2>&1 </dev/null; then
        reason="no key to log in with: ${identity:-$HOME/.ssh/id_*} does not exist or cannot be read"
    fi
    return 0
}

# shellcheck shell=bash
# What the lines of ssh's log mean, by the table `failures` at the top of the script (openssh/reasons.py), six words a
# row: pattern, layer, reason, permanent, phase, more. A row goes by the place of its pattern. The agent does the same
# (node/upstream/words.py).

# Set `plain_text` to $1 as one short printable line.
tidy() {
    plain_text=${1//[^[:print:]]/?}
    plain_text=${plain_text:0:200}
}

# Set layer, reason and permanent from the file $1, which holds ssh's log; $3 holds what was said beside it, which is
# quoted and never understood. Lines that hold $2 tell of a channel that was not opened, our own probe's or a program's,
# and nothing of the connection. Lines count in the order of time, and the first that decides is the reason.
read_reason() {
    local text line row phase='' offered='' last='' any='' plain_text
    layer='' reason='' permanent=0
    read_text "$1"
    while read -r line; do
        [[ -n $line && $line != *"$2"* ]] || continue
        any=1
        plain_line "$line"
        find_row
        case ${row:+${failures[row + 1]}} in
            phase)
                phase=${failures[row + 2]}
                if [[ $phase == up ]]; then offered='' layer='' reason='' permanent=0; fi
                ;;
            offered) phase=offered offered+=${offered:+, }${BASH_REMATCH[1]} ;;
            hop)
                layer=hop permanent=0
                last_talk "$3"
                reason="${failures[row + 2]}${plain_text:+: \"$plain_text\"}"
                return 0
                ;;
            skip) ;;
            '') ;;
            *)
                if [[ -z $layer ]]; then take_row "$row" "$line" "$3"; fi
                ((failures[row + 5])) || return 0
                ;;
        esac
    done <<<"$text"
    [[ -z $layer ]] || return 0
    # Talk is a reason only of an ssh that did not come as far as to its own log.
    if [[ -z $any ]]; then last_talk "$3"; else tidy "$last"; fi
    layer=ssh reason=${plain_text:-ssh was ended}
    # Of a far end that hangs up ssh says so on stderr only, where talk stands too.
    if [[ $phase == up && -z $last ]]; then reason='the connection ended: an idle limit of its own, or it went down?'; fi
}

# Set `row` to that of the table which `line` meets in this `phase`, and BASH_REMATCH to what its pattern has found; or
# to nothing.
find_row() {
    local i
    for ((i = 0; i < ${#failures[@]}; i += 6)); do
        if [[ (-z ${failures[i + 4]} || ${failures[i + 4]} == "$phase") && $line =~ ${failures[i]} ]]; then
            row=$i
            return 0
        fi
    done
    row=''
}

# Set `line` to $1 without what LogVerbose puts before it, and `last` too if it is about more than the login's progress.
plain_line() {
    local quiet='' tag='^[a-z0-9_.-]+:[a-z0-9_]+\(\):[0-9]+ \((bin=[^)]*, )?pid=[0-9]+\): '
    line=${1%$'\r'}
    if [[ $line == debug[123]:\ * ]]; then quiet=1 line=${line#debug?: }; fi
    if [[ $line =~ $tag ]]; then line=${line#"${BASH_REMATCH[0]}"}; fi
    case $line in 'Authenticated to '* | 'Transferred: '* | 'Bytes per second: '* | 'Killed by signal '*) quiet=1 ;; esac
    if [[ -z $quiet ]]; then last=$line; fi
}

# True if the lines $2 of ssh's log say that the jump host could not connect: login (which is behind us if $1 is `up`),
# forwarding and the way back work. What stands behind its word at the end is its own text.
tried_to_connect() {
    local line last phase=$1
    while read -r line; do
        plain_line "$line"
        case $line in
            'Authenticated to '*) phase=up ;;
            'Received disconnect from '*) return 1 ;;
        esac
        if [[ $phase == up && $line =~ ^channel\ [0-9]+:\ open\ failed:\ connect\ failed ]]; then return 0; fi
    done <<<"$2"
    return 1
}

# Set `plain_text` to the last line of the file $1.
last_talk() {
    local text one
    plain_text=''
    text=$(tail -c 4096 -- "$1" 2>/dev/null) || :
    while read -r one; do
        if [[ -n ${one//[[:space:]]/} ]]; then tidy "${one%$'\r'}"; fi
    done <<<"$text"
}

# Set layer, reason and permanent from row $1 of the table, whose pattern has just matched the line $2; $3 holds the
# talk.
take_row() {
    local groups=("$2" "${BASH_REMATCH[@]:1}") i
    layer=${failures[$1 + 1]} reason=${failures[$1 + 2]} permanent=${failures[$1 + 3]}
    # The row of a refused key is the one that names the keys.
    if [[ $reason == *%k* ]] && look_at_key; then return 0; fi
    tidy "$offered"
    reason=${reason//%k/"${plain_text:+ $plain_text}"}
    for ((i = ${#groups[@]} - 1; i >= 0; i--)); do
        tidy "${groups[i]}"
        reason=${reason//%$i/"$plain_text"}
    done
    if [[ $reason == *%t* ]]; then
        last_talk "$3"
        if [[ -n $plain_text ]]; then plain_text=" It says: \"$plain_text\""; fi
        reason=${reason//%t/"$plain_text"}
    fi
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

# Set `account`, `candidates` and `certificates` to what ssh would log in with; true if it would take no key at all, and
# `reason` says why.
keys_are_off() {
    local line key
    candidates=() certificates=() account=''
    while read -r line key; do
        case $line in
            user) account=$key ;;
            identityfile) candidates+=("$key") ;;
            certificatefile) certificates+=("$key") ;;
            preferredauthentications)
                if [[ ,$key, != *,publickey,* ]]; then
                    reason='the configuration of ssh leaves public keys out (PreferredAuthentications in ~/.ssh/config?)'
                    return 0
                fi
                ;;
            pubkeyauthentication)
                if [[ $key == no || $key == false ]]; then
                    reason='the configuration of ssh turns public keys off for it (PubkeyAuthentication no in ~/.ssh/config?)'
                    return 0
                fi
                ;;
        esac
    done <<<"$ssh_says"
    if [[ -n $identity ]]; then candidates=("$identity"); fi
    return 1
}

# A refused key has causes on this side too; true if one holds, and `reason` says which.
look_at_key() {
    local candidates certificates account at key='' readable='' locked='' told=$reason
    reason=''
    if keys_are_off; then return 0; fi
    for key in ${certificates[@]+"${certificates[@]}"}; do
        at_home "$key"
        if certificate_fails "$at" "$account"; then return 0; fi
    done
    for key in ${candidates[@]+"${candidates[@]}"}; do
        at_home "$key"
        key=$at
        # ssh alone knows what the other tokens of ssh_config(5) stand for.
        if [[ $key == *%* ]]; then break; fi
        [[ -r $key ]] || continue
        readable=$key
        if certificate_fails "$key-cert.pub" "$account"; then return 0; fi
        needs_passphrase "$key" || break
        locked=${locked:-$key} readable=''
    done
    if [[ -n $readable || $key == *%* ]] || { [[ -n ${SSH_AUTH_SOCK-} ]] && ssh-add -l >/dev/null 2>&1 </dev/null; }; then
        reason=$told
        return 1
    fi
    if [[ -n $locked ]]; then
        reason="the key $locked has a passphrase and no ssh-agent is there to unlock it; use a key without one, or an ssh-agent"
    else
        reason="no key to log in with: ${identity:-${candidates[*]-}} does not exist or cannot be read"
    fi
}

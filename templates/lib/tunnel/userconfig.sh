# shellcheck shell=bash
# What the user's ~/.ssh/config says, for a supervisor that root started outside the job: the values are taken, and
# nothing of it is run. A Match exec, a ProxyCommand, a library would be the user's program with neither the job's
# limits nor its end.

# What is taken. None of these names a program or a library.
passive='hostname|port|user|hostkeyalias|addressfamily|bindaddress|identityfile|certificatefile|identitiesonly|pubkeyauthentication|preferredauthentications|gssapiauthentication|ciphers|macs|kexalgorithms|hostkeyalgorithms|casignaturealgorithms|pubkeyacceptedalgorithms|pubkeyacceptedkeytypes|proxyjump'

# Of those, what becomes part of a command.
in_commands='hostname|port|user|hostkeyalias|proxyjump'

# Set `user_config` to the words for a configuration file of ours, for a tunnel of user $1: with what ssh itself reads
# in his where that is who we are, and empty where we are the service account.
ask_config() {
    local asked=' ' waiting=() host
    user_config=(-F ssh_config)
    : >ssh_config || give_up 'state nothing can be written in the state directory'
    [[ $1 == "$UID" ]] || return 0
    waiting=("${jump_destinations[@]#*@}")
    while ((${#waiting[@]})); do
        host=${waiting[0]}
        waiting=("${waiting[@]:1}")
        # A chain of hops that comes back to one of them is not followed.
        if [[ $asked == *" $host "* ]] || ((${#asked} > 2000)); then continue; fi
        asked+="$host "
        ask_host "$host"
    done
}

# Add what ssh has for host $1 to our file, and the hosts on the way there to `waiting`.
ask_host() {
    local says key value block="Host $1"$'\n'
    [[ $1 =~ ^[A-Za-z0-9._:%-]+$ ]] || return 0
    # Who may have no further process starts none: the kernel sees to it, whatever the file says.
    if ! says=$(exec timeout -k 1 5 /bin/bash -p -c 'ulimit -u 0 && ulimit -t 5 && exec "$@"' ask \
        ssh "${ssh_asking[@]}" -- "$1" 2>ssh.talk </dev/null); then
        last_talk ssh.talk
        note_config "is not used for $1 (a Match exec is not run outside the job): $plain_text"
        return 0
    fi
    while read -r key value; do
        if [[ $key == proxycommand && $value != none ]]; then
            note_config "has a ProxyCommand for $1, which is not run outside the job; use ProxyJump, or the hook line in the job script"
        fi
        [[ $key =~ ^($passive)$ && -n $value && $value != *[\"\\]* ]] || continue
        # ssh makes a command for a shell of the names and users of a ProxyJump, unquoted up to OpenSSH 9.5.
        if [[ $key =~ ^($in_commands)$ && ! $value =~ ^[A-Za-z0-9_.:@,+%/[-][]A-Za-z0-9_.:@,+%/[-]*$ ]]; then
            note_config "has a $key for $1 that is none, and is not used"
            continue
        fi
        case $key in
            # Those that ssh tries by itself: named, it would complain of each that is not there.
            identityfile) if [[ $value == \~/.ssh/id_* && ! -e ${value/#\~/$HOME} ]]; then continue; fi ;;
            proxyjump)
                if [[ $value != none ]]; then queue_hops "$value"; fi
                ;;
        esac
        # Not every value may stand in quotes.
        if [[ $value == *[[:space:]]* ]]; then value=\"$value\"; fi
        block+="    $key $value"$'\n'
    done <<<"$says"
    printf '%s' "$block" >>ssh_config
}

# Add the hosts of the ProxyJump $1 to `waiting`.
queue_hops() {
    local hop hops
    IFS=, read -r -a hops <<<"$1"
    for hop in "${hops[@]}"; do
        hop=${hop#ssh://} hop=${hop##*@}
        if [[ $hop == \[*\]* ]]; then hop=${hop#\[} hop=${hop%%\]*}; elif [[ $hop != *:*:* ]]; then hop=${hop%:*}; fi
        waiting+=("$hop")
    done
}

note_config() {
    log error "\$HOME/.ssh/config $1"
    say "failed $node config $HOME/.ssh/config $1"
}

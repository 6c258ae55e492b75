# shellcheck shell=bash
# Checks, from a node and as the service account, what the service key can do at each jump host: forward to what it may,
# and nothing else. No command, no terminal, no other target.
#
# Answers on stdout, each line with the token: file confirmed|breach TEXT · done unchanged|failed TEXT

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /

answer() {
    printf '%s %s\n' "$token" "$*" 2>/dev/null || :
}

# Set `said` to what a command prints that ssh to jump host number $1 runs with "$@", and `told` to ssh's own log: a
# banner is in neither.
ask() {
    local number=$1 port=()
    shift
    [[ -z ${jump_ports[number]} ]] || port=(-p "${jump_ports[number]}")
    : >"$log"
    said=$(setpriv --reuid="$account" --regid="$account" --clear-groups -- env -i PATH="$PATH" HOME=/nonexistent \
        timeout "$((connect_timeout_s + 15))" ssh -E "$log" -F /dev/null ${session[@]+"${session[@]}"} \
        "${ssh_options[@]}" ${port[@]+"${port[@]}"} ${arguments[@]+"${arguments[@]}"} -- \
        "${jump_destinations[number]}" "$@" 2>/dev/null </dev/null) || :
    told=$(head -c 65536 -- "$log")
}

confirmed() {
    answer "file confirmed ${jump_names[jump]}: $1"
}

breach() {
    breaches=$((breaches + 1))
    answer "file breach ${jump_names[jump]}: $1"
}

# Nothing listens at $firewall; only where nft.conf is loaded is there more to say than that the connection is refused.
ask_firewall() {
    arguments=(-W "$firewall")
    ask "$jump"
    case $told in
        *'open failed: connect failed: No route to host'*) confirmed 'its firewall closes it to the key' ;;
        *'open failed: administratively prohibited'*)
            breach "cannot be asked about its firewall: its PermitOpen lacks $firewall; it is in what jump-kit writes"
            ;;
        *) breach 'has no firewall that closes it to the key: nft -f nft.conf, of jump-kit' ;;
    esac
}

# It refuses what is forbidden, each target.
ask_forbidden() {
    local target
    for target in ${forbidden[@]+"${forbidden[@]}"}; do
        arguments=(-W "$target")
        ask "$jump"
        case $told in
            *'open failed: administratively prohibited'* | *'open failed: connect failed: No route to host'*)
                confirmed "refuses $target"
                ;;
            *'open failed: connect failed: Permission denied'* | *'open failed: connect failed: Operation not permitted'*)
                confirmed "refuses $target"
                ;;
            *'open failed: connect failed: Network is unreachable'*) confirmed "has no route to $target" ;;
            # It may, by sshd's rules, and there is nobody: whether a firewall stands is asked below.
            *'open failed: connect failed: '*) confirmed "reaches nobody at $target" ;;
            *) breach "does not refuse $target" ;;
        esac
    done
}

# It runs nothing and gives no terminal.
ask_session() {
    # The first value of an option counts: here a session is asked for, which no other ssh of ours has.
    arguments=() session=(-o 'IgnoreUnknown=*' -o SessionType=default)
    ask "$jump" printf 'ran-%s' "$token"
    case $said in *"ran-$token"*) breach 'runs commands' ;; *) confirmed 'runs no command' ;; esac
    arguments=(-tt)
    ask "$jump" printf 'ran-%s' "$token"
    case $said$told in
        *"ran-$token"*) breach 'runs commands on a terminal' ;;
        *'PTY allocation request failed'*) confirmed 'gives no terminal' ;;
        *) breach 'gives a terminal' ;;
    esac
}

# All of this for one jump host.
prove_jump() {
    arguments=(-W "$allowed") session=()
    ask "$jump"
    case $told in
        *'open failed: connect failed'*) confirmed "forwards to $allowed" ;;
        *) breach "does not forward: ${told##*$'\n'}" && return ;;
    esac
    ask_forbidden
    [[ -z $firewall ]] || ask_firewall
    ask_session
}

main() {
    local jump said told breaches=0 arguments session work log
    # In a directory of root's: what the account can rename it could make a link, through which root would write. And
    # where fs.protected_regular is on root may not write what is another's in /tmp, so that what was said of one target
    # would stand there for the next. Not in root's TMPDIR, where the account may not come.
    work=$(mktemp -d /tmp/hpcproxy-XXXXXXXX) && chmod 0711 "$work" && log=$work/log
    trap 'rm -rf -- "$work"' EXIT
    : >"$log" && chown -- "$account" "$log"
    for jump in "${!jump_names[@]}"; do prove_jump; done
    if ((breaches)); then
        answer 'done failed the service key can do more, or less, than it should'
    else
        answer 'done unchanged'
    fi
}

(main)
exec cat >/dev/null

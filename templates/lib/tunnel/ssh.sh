# shellcheck shell=bash
# One ssh: its command line, its start, whether it serves, its end. The rest of tunnel.sh decides when.
#
#   ssh_pid, watch_pid   the ssh that is up or coming up, and who watches it
#   learned, ssh_says, old_ssh   what this node's ssh has been asked (learn)
#   hops                 there may be hosts on the way (ProxyJump)

ssh_pid='' watch_pid='' learned='' ssh_says='' old_ssh='' hops=''
ssh_asking=(-G -o 'IgnoreUnknown=*' -o LogVerbose=none) asking_s=5 user_config=()

# `hash` also finds what may not be run.
has_ssh() {
    hash ssh 2>/dev/null && [[ -x ${BASH_CMDS[ssh]} ]]
}

# Set to the words for it, or to nothing where this node's programs do not know them:
#   cipher       AES-GCM first, where it is among those that this ssh offers to the first jump host
#   log_verbose  what makes ssh say how far a login has come, from OpenSSH 8.5 on
#   follow       end a program when the process that started it is gone, killed or not, even where SIGHUP is ignored
#   held_back    start a program with the signals held back that it is to heed (coreutils 8.31), unless they are already
# and `ssh_says` to what ssh has for the first jump host, for look_at_key. All at once, for each process costs a node
# that starts a job more than a millisecond; only where that fails each by itself.
learn() {
    local key found code=0
    [[ -z $learned ]] || return 0
    learned=1
    cipher=() log_verbose=() follow=(setpriv --pdeathsig "$death")
    held_back=()
    if [[ -z $held ]]; then held_back=(env --block-signal="$heeded"); fi
    if [[ -z $uses_ssh ]] || ! has_ssh; then
        if [[ -n $held ]] || ! env --block-signal="$heeded" --version >/dev/null 2>&1; then held_back=(); fi
        return 0
    fi
    ssh_would "${follow[@]}" ${held_back[@]+"${held_back[@]}"} ssh || code=$?
    # One that hangs in the user's own `Match exec`, or in a name service, would hang again.
    if ((code && code != 124 && code != 137)); then
        if ! ssh_would "${follow[@]}" ssh; then follow=(); fi
        if ! ssh_would ${held_back[@]+"${held_back[@]}"} ssh; then held_back=(); fi
        ssh_would ssh || look_at_version
    fi
    # It names what it knows.
    while read -r key found; do
        case $key in
            ciphers)
                found=,$found,
                if [[ $found == *,"$first_cipher",* ]]; then
                    found=${found/,"$first_cipher",/,}
                    found=$first_cipher${found%,}
                    cipher=(-o "Ciphers=$found")
                fi
                ;;
            logverbose) log_verbose=(-o "$login_option") ;;
            proxyjump) if [[ $found != none ]]; then hops=1; fi ;;
        esac
    done <<<"$ssh_says"
    # Of the others nothing was asked. Where the configuration is ours it has nothing that would stay.
    if ((${#jump_destinations[@]} > 1)); then hops=1; fi
    if ((${#user_config[@]})); then hops=''; fi
}

# Have in the state directory, where there may be hosts on the way, the program `hop`: ssh starts the program of its own
# name for each of them (`jumpssh` in its ssh.c), with the configuration of that host and none of our options; this one
# adds those by which it ends with ours. False where there is none, or nothing there may be run: then it is ssh itself.
name_ssh() {
    [[ -n $hops ]] || return 1
    [[ ! -x hop ]] || return 0
    # shellcheck disable=SC2016 # for that bash
    {
        printf '#!/bin/bash -p\nexec -a "$0" ssh'
        printf ' %q' "${hop_options[@]}"
        printf ' "$@"\n'
    } 2>/dev/null >hop && chmod 700 hop 2>/dev/null && [[ -x hop ]]
}

# Set `old_ssh` to a sentence if ssh here is too old. A process: only where it has not said what it would do.
look_at_version() {
    local said
    both=1 hear -s KILL "$asking_s" ssh -V </dev/null || :
    [[ $said =~ ^OpenSSH_([0-9]{1,3})\.([0-9]{1,3}) ]] || return 0
    if ((10#${BASH_REMATCH[1]} * 100 + 10#${BASH_REMATCH[2]} < least_ssh)); then
        old_ssh="${BASH_REMATCH[0]} is too old on this node, $((least_ssh / 100)).$((least_ssh % 100)) is needed"
    fi
}

# True if the command line "$@", which ends with ssh and options, can be used for the first jump host.
ssh_would() {
    local said code=0
    hear -s KILL "$asking_s" "$@" "${ssh_asking[@]}" -- "${jump_destinations[0]}" 2>/dev/null </dev/null || code=$?
    ssh_says=$said
    return "$code"
}

# Set `command` to ssh with our options and what "$@" adds, to jump host number $1; its log goes to ssh.log.
ssh_command() {
    local jump=$1
    shift
    learn
    command=(ssh -E ssh.log ${user_config[@]+"${user_config[@]}"} "${ssh_options[@]}")
    command+=(${cipher[@]+"${cipher[@]}"} ${log_verbose[@]+"${log_verbose[@]}"})
    if [[ -n ${jump_ports[jump]} ]]; then command+=(-p "${jump_ports[jump]}"); fi
    command+=("$@" -- "${jump_destinations[jump]}")
    # shellcheck disable=SC2016 # for that bash
    if name_ssh; then command=(/bin/bash -p -c 'exec -a "$0" ssh "$@"' ./hop "${command[@]:1}"); fi
}

# True once the master's control socket is there: login done.
await_master() {
    local now deadline
    clock
    deadline=$((now + connect_timeout_s + 5))
    until [[ -S ctl ]]; do
        [[ -z $ending ]] && kill -0 "$ssh_pid" 2>/dev/null && clock && ((now < deadline)) || return 1
        sleep 0.05
    done
}

# True if the master listens at ADDRESS:PORT. Not by a -D of its own: ClearAllForwardings, which keeps the user's
# forwards away, would take that too.
take_port() {
    (bounded "$((connect_timeout_s + 5))" ssh -F /dev/null -S ctl -O forward -D "$address:$port" -- port) >/dev/null 2>&1 </dev/null
}

# True if a channel through the master comes back from the jump host's closed port within $1 seconds, which touches no
# service; or, from one that refuses it, if https is let through: what it does not refuse at once, it tries.
probe_master() {
    local answer=''
    if ask_master "$1" "$probe_target"; then return 0; fi
    [[ $answer == *'open failed: administratively prohibited'* ]] || return 1
    ask_master "$1" "$probe_target_https" || [[ $answer == silence ]]
}

# True if the far end tried to connect to $2; `answer` is what ssh said, or silence if there was none within $1 seconds.
ask_master() {
    local text before out=0
    read_text ssh.log
    before=${#text}
    (bounded "$1" ssh -F /dev/null -S ctl -W "$2" -- probe) >/dev/null 2>&1 </dev/null || out=$?
    read_text ssh.log
    answer=${text:before}
    ((out)) || return 0
    if ((out == 124 || out == 137)) && [[ -z $answer ]]; then answer=silence; fi
    tried_to_connect up "$answer"
}

# ssh writes a line for each connection that fails: what is in its log is dropped when it is too much.
bound_log() {
    ((looks++ % 12 == 0)) || return 0
    if [[ -n $(find ssh.log -size +256k 2>/dev/null) ]]; then : >ssh.log; fi
}

# An ssh that no longer serves, which came up at $1, is ended, so that the next one comes. The network is ssh's own
# ServerAliveInterval's business; this is for one that was stopped, and for what may have happened while we were (a
# suspended job).
watch_ssh() {
    local now before stopped=0 looks=0 line quiet
    trap - EXIT URG HUP
    trap '' TERM INT USR1 USR2
    exec {quiet}<> <(:)
    now=$1
    while before=$now; do
        # Not `sleep`, which would live on a while after us.
        read -r -t "$alive_interval_s" -u "$quiet" || :
        clock
        bound_log
        if [[ -n $of_step ]] && read -r line 2>/dev/null <"/proc/$$/stat" && [[ ${line##*) } != ?" $PPID "* ]]; then
            log info 'what started this step was killed'
            kill -URG "$$" 2>/dev/null || :
        fi
        read -r line 2>/dev/null <"/proc/$ssh_pid/stat" || return 0
        case ${line##*) } in T* | t*) stopped=$((stopped + 1)) ;; *) stopped=0 ;; esac
        if ((stopped >= (alive_count > 1 ? alive_count - 1 : 1))); then
            log info 'ssh was stopped; ended'
        elif ((now - before > 2 * alive_interval_s + 1)); then
            log info "this node or job stood still for $((now - before - alive_interval_s)) s"
            if ((!stopped)) && probe_master "$alive_interval_s"; then continue; fi
        else
            continue
        fi
        signal_ssh KILL
        return 0
    done
}

# Start `command` in a process group of its own, with what is said beside its log in ssh.talk. Slurm sends SIGTERM to
# all processes of a job that ends, and users send other signals to them: ssh serves on. It goes with the supervisor,
# where the system knows how. A banner may be as long as the jump host likes: neither file grows beyond 4 MiB.
start_ssh() {
    launching=1
    set -m
    (
        set +m
        trap '' TERM INT QUIT USR1 USR2 XFSZ
        ulimit -f 4096
        : >ssh.log
        exec ${follow[@]+"${follow[@]}"} "${command[@]}" </dev/null >/dev/null 2>ssh.talk
    ) &
    ssh_pid=$! launching=''
    set +m
    heed
}

# Send signal $1 to ssh and all that it has started, or that has started it: there may be a wrapper by its name.
signal_ssh() {
    kill "-$1" -- "-$ssh_pid" 2>/dev/null || :
}

# Wait for the end of ssh. A trap ends every `wait`, whatever it waits for.
await_ssh() {
    while [[ -z $ending ]]; do
        woken=''
        wait "$ssh_pid" 2>/dev/null || :
        [[ -n $woken ]] || break
    done
}

# ssh is gone with all of its group: told to end, or after a second by force.
end_ssh() {
    local tries
    [[ -n $ssh_pid ]] || return 0
    signal_ssh HUP
    for ((tries = 0; tries < 50; tries++)); do
        kill -0 "$ssh_pid" 2>/dev/null || break
        sleep 0.02
    done
    signal_ssh KILL
    wait "$ssh_pid" 2>/dev/null || :
    ssh_pid=''
}

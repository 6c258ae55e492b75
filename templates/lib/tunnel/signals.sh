# shellcheck shell=bash
# The signals of a supervisor, pauses that they interrupt, and its end.
#
#   ending   it was told to end at once, or is at its end; told: SIGTERM has come, and is still to be heeded (heed)
#   woken    a signal has come since this was emptied; launching: somebody has just started a process and wants its `$!`
#   pause_pid, outstay_pid   the `sleep` of a pause, and who watches for the job's last process here
#   heeded   what the agent heeds; held: it is held back already; death: what ends ssh when this process dies

ending='' told='' woken='' launching='' pause_pid='' outstay_pid='' heeded='TERM,URG,INT,USR1' held='' death=HUP

end() {
    ending=1 woken=1
    # By HUP: what Slurm sends to all processes of a job, ssh does not heed (start_ssh).
    if [[ -n $ssh_pid ]]; then signal_ssh HUP; fi
    if [[ -n $pause_pid ]]; then kill "$pause_pid" 2>/dev/null || :; fi
    if [[ -n $watch_pid ]]; then kill -KILL "$watch_pid" 2>/dev/null || :; fi
    if [[ -n $outstay_pid ]]; then kill -HUP "$outstay_pid" 2>/dev/null || :; fi
}

# Runs at every exit; $1 is the exit code. A supervisor that fails by a mistake of ours says so and does not mark the
# job. Signals come to every process of a step: one that ended `rm` half way would leave what nobody knows for ours.
clean_up() {
    trap '' HUP INT TERM URG USR1 USR2
    if (($1)) && [[ -z $ending ]]; then say "gave-up ${node-} supervisor it ended by an error of its own, code $1"; fi
    end
    end_ssh
    # The Prolog's directory stands in one of root's, whose Epilog removes what stays.
    remove_state
    exit 0
}

# From here on: what ends a supervisor tidies up.
trap_signals() {
    trap end TERM URG
    if [[ $job == shell ]]; then trap end USR1 INT; else trap 'woken=1' USR1 INT; fi
    trap 'woken=1' HUP
    trap '' PIPE
    trap 'clean_up $?' EXIT
}

# Slurm's SIGTERM.
tell() {
    told=1 woken=1
    [[ -n $launching ]] || heed
}

# If there was one, have somebody watch for the moment when nobody of the job is left here. Not by the trap where that
# would change `$!` under who has just started something. Slurm sends SIGTERM twice: the second must not end the
# watcher, which as a new process would heed it until it says that it does not. Here that one is lost, and has nothing
# more to say.
heed() {
    [[ -n $told && -z $ending ]] || return 0
    trap '' TERM INT USR1 USR2
    told=''
    if [[ -z $outstay_pid ]] || ! kill -0 "$outstay_pid" 2>/dev/null; then
        log info "told to end; stays while other processes of the job are here"
        outstay_nobody &
        outstay_pid=$!
    fi
    heed_signals
}

# What a job's supervisor does with those that Slurm and the user send to all of its processes.
heed_signals() {
    trap tell TERM
    # Not '', which ssh would inherit and never end.
    trap 'woken=1' INT USR1 USR2
}

# An interruptible pause of $1 seconds: the traps run at `wait`.
pause() {
    woken='' launching=1
    sleep "$1" &
    pause_pid=$! launching=''
    heed
    wait "$pause_pid" 2>/dev/null || :
    if [[ -n $woken ]]; then kill "$pause_pid" 2>/dev/null || :; fi
    pause_pid=''
}

# A pause of $1 seconds, too short to be interrupted and too short for a process of its own.
moment() {
    local quiet
    exec {quiet}<> <(:)
    read -r -t "$1" -u "$quiet" || :
    exec {quiet}>&-
}

# Signals that whoever started us ignores (nohup, `trap '' TERM`) a shell can neither trap nor give back to what it
# starts: begin anew, with the arguments "$@", without that. Where `env` cannot do it (coreutils 8.31) ssh is ended by
# KILL.
unmute() {
    local line lines=() ignored=0
    mapfile -t lines <"/proc/$$/status"
    for line in "${lines[@]}"; do
        if [[ $line =~ ^SigIgn:[[:space:]]*([0-9a-f]{1,16})$ ]]; then ignored=$((16#${BASH_REMATCH[1]})); fi
    done
    # HUP, USR1, USR2, TERM, CHLD, URG (signal(7)).
    ((ignored & (1 << 0 | 1 << 9 | 1 << 11 | 1 << 14 | 1 << 16 | 1 << 22))) || return 0
    if env --default-signal=HUP --version >/dev/null 2>&1; then
        exec env --default-signal=HUP,USR1,USR2,TERM,CHLD,URG /bin/bash -p "$0" "$@"
    fi
    death=KILL
}

# In a step that is to become the agent: begin anew with the signals held back that the agent is to heed. One that comes
# before ends this process, which has nothing yet; one that comes after waits, if not for the traps, then for the
# agent's handlers. Held back only by an `env` on the way there, it could come upon the shell when that has looked at
# its traps for the last time, and be lost until Slurm kills what is left, or upon `env`, and leave the state to nobody.
# Where `env` knows no such option that remains.
hold_back() {
    if [[ $1 == shell || -n $3 || -z $agent ]] || ! find_python; then return 0; fi
    if env --block-signal="$heeded" --version >/dev/null 2>&1; then
        exec env --block-signal="$heeded" /bin/bash -p "$0" hold "$1" "$2" agent
    fi
}

# True if a signal that ends us waits, held back. (proc(5): bit 14 is SIGTERM, 22 SIGURG.)
end_waits() {
    local key value
    while read -r key value; do
        if [[ $key == @(Sig|Shd)Pnd: ]] && ((16#$value & (1 << 14 | 1 << 22))); then return 0; fi
    done <"/proc/$$/status"
    return 1
}

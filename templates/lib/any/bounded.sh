# shellcheck shell=bash
# A program that somebody else may have put a wrapper around, bounded in time and in what it leaves.

# In a subshell: run "$@" as timeout(1) does, by force a second later, and end what is left of its process group then.
# There may be a wrapper by the name of ssh or squeue, which starts what stays. Slurm's signals go to each process of a
# job, so to these, too: the program answers them, and the subshell waits for that.
bounded() {
    local code=0 pid
    # What is started now has its signals as ever.
    trap : HUP INT TERM URG USR1 USR2
    timeout -k 1 "$@" <&0 &
    pid=$!
    # A `wait` that a signal interrupts loses the program's exit code.
    trap '' HUP INT TERM URG USR1 USR2
    wait "$pid" 2>/dev/null || code=$?
    # Else bash may take the number for that of its own job, which has ended, and send nothing.
    disown "$pid" 2>/dev/null || :
    # timeout leads a process group of its own, which ends before its number can be anybody else's: within this moment
    # the kernel does not come round to it.
    kill -KILL -- "-$pid" 2>/dev/null || :
    return "$code"
}

# Set `said` to what "$@" prints, with `both` on stderr too, bounded and ending as above. The answer ends where
# the program does, whoever holds its output then: a daemon of a session of its own may.
hear() {
    local code=0 ended
    IFS='' read -r -d '' said < <(
        if [[ -n ${both-} ]]; then exec 2>&1; fi
        bounded "$@" || code=$?
        printf '\n%d\0' "$code"
    ) || :
    ended=${said##*$'\n'}
    said=${said%$'\n'*} said=${said%$'\n'}
    [[ $ended =~ ^[0-9]{1,3}$ ]] && return "$ended"
}

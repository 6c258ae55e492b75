# shellcheck shell=bash
# A program that somebody else may have put a wrapper around, bounded in time and in what it leaves.

# In a subshell: run "$@" as timeout(1) does, and end what is left of it then. There may be a wrapper by the name of ssh
# or squeue, which starts what stays, and holds the outputs. Slurm's signals go to each process of a job, so to these,
# too: the subshell stays until what it waits for has ended.
bounded() {
    local code=0 pid
    trap : HUP INT TERM URG USR1 USR2
    timeout "$@" <&0 &
    pid=$!
    # timeout leads a process group of its own, which ends before its number can be anybody else's: within this moment
    # the kernel does not come round to it.
    while
        code=0
        wait "$pid" || code=$?
        ((code > 128)) && kill -0 "$pid" 2>/dev/null
    do :; done
    kill -KILL -- "-$pid" 2>/dev/null || :
    return "$code"
}

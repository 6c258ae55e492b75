# shellcheck shell=bash
# Which of several supervisors goes first: of two that serve the same job on this node, of all nodes of a job.

# Two shells of a job may ask for its tunnel at the same moment. The supervisor that was there first serves both: the
# later one says so once that is ready, or takes its place if it goes.
yield_to_older() {
    local directory older=1
    # Longer than a tick of the clock that stamps files: whoever comes after that has a later stamp than our `turn`, and
    # whoever has the same is seen by us as we are by him.
    uptime_cs
    if ((now_cs - turn_cs < 3)); then moment "0.0$((3 - now_cs + turn_cs))"; fi
    while ((older)) && [[ -z $ending ]]; do
        older=0
        for directory in "$state_home/$key-"*; do
            if [[ $directory == "$state" || ! -O $directory/turn ]] || ! supervisor_lives "$directory"; then continue; fi
            before_us "$directory" || continue
            older=1
            if says_ready "$directory"; then
                # First gone, then said: whoever hears it must find the state of the other, not ours in its last moment.
                remove_state
                say "state $node $directory"
                say "ready $node the same tunnel as another shell of this job"
                exit 0
            fi
        done
        if ((older)); then pause 0.05; fi
    done
}

# True if the supervisor in directory $1 took its turn before us. By when it can be seen and not by when its process
# began: one that began earlier and is seen only after we have looked must not take itself for the first.
before_us() {
    [[ $1/turn -ot turn ]] && return 0
    [[ ! turn -ot $1/turn && $1 < $state ]]
}

# True if this is the node for whose login the others of its job wait: it does not wait for its own place in the spread.
leads() { [[ -n $of_step && -n ${HPCPROXY_FOLLOWS-} && ${SLURM_NODEID:-0} == 0 ]]; }

# In a job of many nodes all but the first wait until it is in, or its failure will pass: job.sh then says so on stdin.
await_first() {
    local now deadline line code
    if [[ -z $uses_ssh || -z $of_step || -z ${HPCPROXY_FOLLOWS-} ]] || leads; then return 0; fi
    clock
    deadline=$((now + connect_timeout_s + 15))
    while clock && ((now < deadline)) && [[ -z $ending ]] && ! end_waits; do
        code=0
        read -r -t 0.5 line || code=$?
        ((code > 128)) || break
    done
}

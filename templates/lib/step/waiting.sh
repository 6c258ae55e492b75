# shellcheck shell=bash
# Waiting for a tunnel: of the step that is started here, of the Prolog's, of another shell's.

# A pause of $1 seconds without a process for it, which would cost a busy node as much as the pause is meant to save it:
# nobody ever writes to that pipe. Elsewhere than in a waiting loop nothing depends on it.
pause() {
    if [[ -z $quiet ]]; then exec {quiet}<> <(:); fi
    read -r -t "$1" -u "$quiet" || :
}

# Set `patience_s` to the seconds that all nodes of the job get: what one gets, and the time over which they spread.
patience() {
    spread "${SLURM_JOB_NUM_NODES:-${SLURM_NNODES:-1}}" "$jump_count"
    patience_s=$((ready_timeout_s + (spread_ms + 999) / 1000))
}

# Not twice, where two steps are tried; a mistake of ours in it costs nobody the tunnel.
tell_others_once() {
    if [[ -n $script ]]; then (set +e && tell_others "$script") || :; fi
    script=''
}

# In a job of many nodes one logs in first, and the others when it is in or its failure will pass: each key that is
# refused costs the address 5 s of sshd's patience (PerSourcePenalties), and behind one address there may be the whole
# cluster. Four cost less than others wait. What srun reads (`input`) goes to all of them from `go`; when this process
# ends they go, too. $1 is the number of nodes.
hold_others_back() {
    unset HPCPROXY_FOLLOWS
    (($1 > 4 && ${#sizes[@]} == 1)) || return 0
    export HPCPROXY_FOLLOWS=1
    exec {go}<> <(:)
    input=/proc/self/fd/$go
}

let_others_go() {
    printf 'go\n' >&"$go"
    exec {go}>&-
    go=''
}

tell_unneeded() {
    if [[ -n $silent ]]; then return 0; fi
    printf 'hpcproxy: the nodes of this job reach the internet by themselves, so no tunnel is started\n' >&2
}

# Start the step in mode $1 (`ssh`, or nothing to let each node choose) on $2 nodes and wait for it. Returns 0 when all
# are ready, whose state here is `state` then, 2 if they chose differently, 1 if there is no tunnel, which has then been
# said, and 3 if none is needed: with `via: auto` all nodes reach the internet by themselves. Nothing is left then.
try_step() {
    local -A answers why=()
    local cancelled='' over='' go='' input=/dev/null supervisor_pid now begun outcome=0
    no_answers
    clock
    begun=$now
    open_answers || return 1
    trap 'cancelled=1' HUP INT
    trap 'cancelled=1 over=1' TERM
    trap - QUIT USR1 USR2
    hold_others_back "$2"
    keep_step "$1" '' '' 0 <"$input" >&3 2>&4 3>&- 4>&- &
    supervisor_pid=$!
    tell_others_once
    await_step "$supervisor_pid" "$2" || outcome=$?
    case $outcome in
        0)
            if [[ $via == auto ]] && ((answers[out] >= $2)); then
                end_step "$supervisor_pid"
                tell_unneeded
                return 3
            fi
            if find_started; then
                tell_success "$2"
                return 0
            fi
            end_step "$supervisor_pid"
            complain "this shell is on no node of job $job; open one there with: srun --overlap --pty bash"
            return 1
            ;;
        1)
            read_said 3
            end_step "$supervisor_pid"
            [[ -n $cancelled ]] || explain "$2" "$((now - begun))"
            ;;
        *) end_step "$supervisor_pid" ;;
    esac
    return "$outcome"
}

# Wait for the step that process $1 keeps: 0 when $2 nodes are ready, 2 if they chose differently, 1 if they will not
# be, or in vain, or if this job is told to end.
await_step() {
    local deadline
    patience
    deadline=$((now + patience_s))
    while [[ -z $cancelled ]] && clock && ((now < deadline)); do
        read_said 3
        if [[ ${answers[modes]} == *agent* && ${answers[modes]} == *ssh* ]]; then return 2; fi
        if [[ -n $go ]] && ((answers[ready] || answers[passing])); then let_others_go; fi
        # One node for which waiting is no use is enough; the others get a moment to say the same.
        if ((answers[hopeless] && deadline > now + 1)); then deadline=$((now + 1)); fi
        if ((answers[ready] >= $2)); then return 0; fi
        kill -0 "$1" 2>/dev/null || break
        pause 0.01
    done
    return 1
}

# Set `state` to that of the tunnel that is ready now; false if this shell is on none of its nodes.
find_started() {
    if is_ours "${answers[state]}" && supervisor_lives "${answers[state]}"; then
        state=${answers[state]}
        return 0
    fi
    find_state "$job.$restart" ready || find_state "$job.$restart"
}

# The tunnel that the Prolog started on this node: true when it is ready, false when it has given up. One that needs
# longer than the bound is used all the same: the agent holds requests until ssh is up.
await_prologs() {
    local now deadline
    clock
    patience
    deadline=$((now + patience_s))
    while clock && ((now < deadline)) && supervisor_lives "$state"; do
        read_text "$run_base/holders/$job.$restart.said"
        case $'\n'$text in *$'\n'ready\ *) return 0 ;; esac
        pause 0.02
    done
    supervisor_lives "$state"
}

# Say in one line, in the job script's output, by which jump host the Prolog's tunnel has got out.
tell_prologs() {
    local line jump=''
    [[ -z $silent && $caller != shell && ${SLURM_PROCID:-0} == 0 && ${SLURM_NODEID:-0} == 0 ]] || return 0
    read_text "$run_base/holders/$job.$restart.said"
    while read -r line; do case $line in ready\ *) jump=${line#ready * } ;; esac done <<<"$text"
    if [[ -n $jump ]]; then printf 'hpcproxy: out through %s, by what this site gives every job\n' "${jump//[^[:print:]]/?}" >&2; fi
}

# True if this is a roll-out's, and it has no tunnel for this job: why is said then. What root's hook could not have a
# step of the user's cannot, either, and to the site's own key it must not even try.
site_gives_none() {
    local line word='' node layer words
    [[ -n $rolled_out ]] || return 1
    read_text "$run_base/holders/$job.$restart.said"
    if [[ -z $text ]]; then read_text "$run_base/holders/$job.0.said"; fi
    while read -r line; do
        case $line in
            ready\ *) word='' ;;
            gave-up\ *) word=$line ;;
        esac
    done <<<"$text"
    if [[ -n $word ]]; then
        read -r _ node layer words <<<"$word"
        complain "$node: $layer: ${words//[^[:print:]]/?}; it is your site's, ask its admin"
    elif [[ $rolled_out == service ]]; then
        complain 'your site gives this job none; ask its admin which jobs get one'
    else
        return 1
    fi
}

# The tunnel that another shell of this job has started: true when it is ready.
await_others() {
    local now deadline
    clock
    patience
    deadline=$((now + patience_s))
    while clock && ((now < deadline)) && find_state "$job.$restart"; do
        if find_state "$job.$restart" ready; then return 0; fi
        sleep 0.05
    done
    complain "the one that is there is not up ($state/log says why)"
    return 1
}

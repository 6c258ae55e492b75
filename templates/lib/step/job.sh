# shellcheck shell=bash
# Starts and ends the holders on all nodes of the job this runs in.
#
#   job.sh start [shell | '' SCRIPT]   prints this node's state directory once every node is ready; else says why not, exit code 1.
#                          `overlap ` stands before it where the job's own steps must be told to share (asks_overlap)
#   job.sh stop            ends them and waits until this node's is gone
#   job.sh status          one line about this node's: `status`, node, JOB.RESTART, pid, state directory, URL and the
#                          content of status.json, between tabs; all but the node empty where there is none
#
# A process of its own (`bash -p`), so that the job script's options, traps and functions are neither seen nor touched.
# HPCPROXY_HOLDER in its environment marks it and what it leaves behind as ours; all other processes of the job are those
# that the way out is for (node/life/job_processes.py).

PATH=$PATH:/usr/local/bin:/usr/bin:/bin
umask 077
# The caller's environment is not ours in this: it would change how this is read, and bound how long.
set +o posix
unset TMOUT

# One line; what follows from it for a job script, and nothing more for a shell.
complain() {
    local consequence='; the job runs on without it'
    if [[ -n $required ]]; then consequence='; the job stops, because the configuration says required'; fi
    if [[ $caller == shell ]]; then consequence=''; fi
    printf 'hpcproxy: no way out: %s%s\n' "$1" "$consequence" >&2
}

# Set `sizes` to the number of nodes of each component of the job (one, unless it is a heterogeneous job) and `count` to
# their sum.
count_nodes() {
    local component=0 name size
    sizes=() count=0
    while name=SLURM_JOB_NUM_NODES_HET_GROUP_$component && [[ -n ${!name-} ]]; do
        sizes+=("${!name}")
        component=$((component + 1))
    done
    if ((component == 0)); then sizes=("${SLURM_JOB_NUM_NODES:-${SLURM_NNODES:-1}}"); fi
    for size in "${sizes[@]}"; do
        [[ $size =~ ^[1-9][0-9]{0,5}$ ]] || return 1
        count=$((count + size))
    done
}

# Set `command` to what runs tunnel.sh in mode $1 on all nodes of the job, or on the $3 of host list $2, as a step of its own
# that takes nothing from the others. The environment and the descriptors are then those that the step is to have.
prepare_step() {
    local name component
    # What sbatch or the user set as options for the job's own steps is none of this step's business.
    for name in ${!SLURM_*} ${!SRUN_*}; do
        case $name in
            SLURM_CONF | SLURM_JOB_ID | SLURM_JOBID | SLURM_CLUSTER_NAME | SLURM_JOB_END_TIME) ;;
            SLURM_HET_SIZE | SLURM_JOB_ID_HET_GROUP_* | SLURM_JOB_NODELIST_HET_GROUP_*) ;;
            *) unset "$name" ;;
        esac
    done
    local words=() options=(
        # One process on each node, beside whatever else runs there, with no memory, core or GPU of its own.
        --ntasks-per-node=1 --cpus-per-task=1
        --overlap --mem=0 --gres=none --cpu-bind=none --mpi=none
        # Its end, early or late, good or bad, is no event for the job.
        --kill-on-bad-exit=0 --wait=0 --quiet --export=ALL --job-name=hpcproxy --chdir=/
    )
    # What the job script has open is not ours to keep open: a lock, a pipe whose reader waits for the end.
    for name in /proc/self/fd/*; do
        name=${name##*/}
        if [[ $name =~ ^[0-9]+$ ]] && ((name > 2 && name < 255)); then exec {name}>&-; fi
    done
    if [[ -n $2 ]]; then
        sizes=("$3")
        options+=(--nodelist="$2")
    fi
    for component in "${!sizes[@]}"; do
        words+=("${options[@]}" --nodes="${sizes[component]}" --ntasks="${sizes[component]}")
        if ((${#sizes[@]} > 1)); then words+=("--het-group=$component"); fi
        words+=(/bin/bash -p "$home/tunnel.sh" hold "$job" "$restart" "$1")
        if ((component + 1 < ${#sizes[@]})); then words+=(:); fi
    done
    # In a session of its own: when the terminal of an interactive job closes, srun would hear of it and kill the step.
    command=(srun "${words[@]}")
    if command -v setsid >/dev/null; then command=(setsid "${command[@]}"); fi
}

# Run the step in mode $1 until it ends by itself; on the nodes where it is killed, by whomever, after one was ready, it is
# started anew. At the job's end Slurm kills this process too. $2 and $3 as above; $4 is the pause before.
# SIGURG ends it all: each further one asks srun in a ruder way. Other signals are for the job's programs (`scancel --full`
# sends them to every process of a batch job).
keep_step() {
    local command=() orders=(USR1 TERM KILL) told=0 srun_pid='' quiet='' line said errors ready=0 heard=''
    trap : HUP INT QUIT TERM USR1 USR2
    trap pass_on URG
    if (($4)); then
        unset HPCPROXY_FOLLOWS
        pause "$4"
        ((told == 0)) || return 0
    fi
    prepare_step "$1" "$2" "$3"
    exec {said}>&1
    exec {errors}< <(exec "${command[@]}" 2>&1 >&"$said" {said}>&-)
    srun_pid=$!
    while read -r line <&"$errors" || (($? > 128)); do
        printf '%s\n' "$line" >&2
        if killed_on "$line"; then
            read_said 1
            if ((ready && told == 0 && ${#sizes[@]} == 1)); then
                keep_step "$1" "$dead" "$dead_count" "$(($4 < 32 ? $4 * 2 + 1 : 60))" {errors}<&- &
            fi
        fi
    done
    srun_pid=''
}

# True if $1 is srun's line on tasks that were killed: `dead` is then the list of their nodes, `dead_count` their number.
killed_on() {
    local range
    [[ $1 =~ ^srun:\ error:\ ([][A-Za-z0-9._,-]+):\ tasks?\ ([0-9,-]+):\  ]] || return 1
    dead=${BASH_REMATCH[1]} dead_count=0
    local IFS=,
    for range in ${BASH_REMATCH[2]}; do dead_count=$((dead_count + 10#${range#*-} - 10#${range%-*} + 1)); done
}

pass_on() {
    if [[ -n $srun_pid ]]; then kill "-${orders[told]}" "$srun_pid" 2>/dev/null || :; fi
    if ((told < 2)); then told=$((told + 1)); fi
}

# Read what the holders have said so far, which descriptor $1 holds, into `ready` (a count), `why` (by node), `hopeless`,
# `modes`, `step` and `own_state`, this node's state directory; nothing is done if that is what it was the last time (`heard`).
read_said() {
    local -A ready_nodes=()
    local verb name layer text line lines=()
    mapfile -t lines <"/proc/self/fd/$1"
    [[ ${lines[*]} != "$heard" ]] || return 0
    heard=${lines[*]} ready=0 hopeless=0 modes=
    for line in "${lines[@]}"; do
        if [[ $line == "state ${SLURMD_NODENAME:-${HOSTNAME%%.*}} /"* ]]; then own_state=${line#state * }; fi
    done
    while read -r verb name layer text; do
        [[ $name =~ ^[A-Za-z0-9._-]+$ ]] || continue
        case $verb in
            mode)
                [[ $modes == *"$layer"* ]] || modes+=$layer
                if [[ $text =~ ^[0-9]+\.[0-9]+$ ]]; then step=$text; fi
                ;;
            ready) ready_nodes[$name]=1 && unset "why[$name]" ;;
            failed)
                why[$name]="$layer: $text"
                if [[ $layer != key ]]; then passing=1; fi
                ;;
            gave-up) why[$name]="$layer: $text" hopeless=1 ;;
            note)
                if [[ $noted != *"$text"* ]]; then printf 'hpcproxy: %s\n' "$text" >&2; fi
                noted+=" $text"
                ;;
        esac
    done <"/proc/self/fd/$1"
    ready=${#ready_nodes[@]}
}

# One sentence: each reason with its nodes. Nodes that said nothing are named last.
explain() {
    local -A nodes_by_reason=()
    local name text sentence='' line tries
    for name in "${!why[@]}"; do nodes_by_reason[${why[$name]}]+="${nodes_by_reason[${why[$name]}]:+,}$name"; done
    for text in "${!nodes_by_reason[@]}"; do
        sentence+="${sentence:+; }${nodes_by_reason[$text]}: $text"
    done
    if [[ -z $sentence ]]; then
        while read -r line; do [[ -n $line ]] && sentence=$line; done </proc/self/fd/4
        # Slurm may tell srun of the job's end before it tells us; then there is nobody to tell.
        if [[ $sentence == *" job $job has expired"* ]]; then
            for ((tries = 0; tries < 40; tries++)); do [[ -n $cancelled ]] || pause 0.05; done
            if [[ -n $cancelled ]]; then return 0; fi
        fi
        if ((ready)) || ! slurm_is_too_old; then
            sentence="$ready of $count nodes ready after $((now - begun)) s${sentence:+ ($sentence)}"
        fi
    fi
    complain "$sentence"
}

# End the step and wait for it: by SIGURG to the holders, and if that is not enough by force. By the clock, for on a busy
# node a turn of the loop takes many times its pause. The holders of a job that is over have heard of it from Slurm; it is
# srun that would wait, KillWait and two seconds, for a node that refused the step because the job's end was there first.
end_step() {
    local now_cs begun_cs force_cs=200 more_cs=100 urg_cs=0 asked=''
    if [[ -n $over ]]; then force_cs=100 more_cs=50; fi
    uptime_cs
    begun_cs=$now_cs
    while kill -0 "$keeper_pid" 2>/dev/null && uptime_cs && ((now_cs - begun_cs < 400)); do
        read_said 3
        if ((now_cs - begun_cs >= force_cs)); then
            force_cs=$((force_cs + more_cs))
            if [[ -n $step && -z $over ]]; then scancel --quiet "$step" 2>/dev/null || :; fi
            kill -URG "$keeper_pid" 2>/dev/null || :
        elif [[ -z $step && -z $asked ]]; then
            # Not one has said a word. srun hears USR1 for its step, and what only begins ends of it.
            asked=1
            kill -URG "$keeper_pid" 2>/dev/null || :
        elif [[ -n $step ]] && ((now_cs - begun_cs >= urg_cs)); then
            # Again and again: a holder that has only begun does not hear it.
            urg_cs=$((now_cs - begun_cs + 50))
            scancel --quiet --signal=URG "$step" 2>/dev/null || :
        fi
        pause 0.05
    done
    kill -URG "$keeper_pid" 2>/dev/null || :
}

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

# Not twice, where two steps are tried; a mistake of ours in it costs nobody the way out.
tell_others_once() {
    if [[ -n $script ]]; then (set +e && tell_others "$script") || :; fi
    script=''
}

# In a job of many nodes one logs in first, and the others when it is in or its failure will pass: each key that is refused
# costs the address 5 s of sshd's patience (PerSourcePenalties), and behind one address there may be the whole cluster. Four
# cost less than others wait. What srun reads goes to all of them (`go`); when this process ends they go, too.
hold_others_back() {
    unset HPCPROXY_FOLLOWS
    ((count > 4 && ${#sizes[@]} == 1)) || return 0
    export HPCPROXY_FOLLOWS=1
    exec {go}<> <(:)
    input=/proc/self/fd/$go
}

let_others_go() {
    printf 'go\n' >&"$go"
    exec {go}>&-
    go=''
}

# Start the step in mode $1 (`ssh`, or nothing to let each node choose) and wait for it. Returns 0 when all nodes are
# ready, 2 if they chose differently, 1 if there is no way out, which has then been said.
try_step() {
    local -A why=()
    local ready=0 hopeless=0 passing=0 modes='' step='' own_state='' heard='' noted='' cancelled='' over='' work keeper_pid now begun deadline
    local go='' input=/dev/null
    clock
    begun=$now
    patience
    deadline=$((now + patience_s))
    # What the step says is read while it is written; without a name the files are gone with their last reader, and until
    # then no signal of a job that is cancelled comes between.
    trap '' HUP INT QUIT TERM USR1 USR2
    if ! { work=$(mktemp -d -- "$state_base/hpcproxy-start-XXXXXXXX") && cd -P -- "$work" && [[ -O . ]]; }; then
        complain "no directory can be made in $state_base"
        return 1
    fi
    exec 3<>said 4<>errors
    cd /
    rm -rf -- "$work"
    trap 'cancelled=1' HUP INT
    trap 'cancelled=1 over=1' TERM
    trap - QUIT USR1 USR2
    hold_others_back
    keep_step "$1" '' '' 0 <"$input" >&3 2>&4 3>&- 4>&- &
    keeper_pid=$!
    tell_others_once
    while [[ -z $cancelled ]] && clock && ((now < deadline)); do
        read_said 3
        if [[ $modes == *gate* && $modes == *ssh* ]]; then
            end_step
            return 2
        fi
        if [[ -n $go ]] && ((ready || passing)); then let_others_go; fi
        # One node for which waiting is no use is enough; the others get a moment to say the same.
        if ((hopeless && deadline > now + 1)); then deadline=$((now + 1)); fi
        if ((ready >= count)); then
            if is_ours "$own_state" && holder_lives "$own_state"; then
                state=$own_state
                return 0
            fi
            if find_state "$job.$restart" ready || find_state "$job.$restart"; then return 0; fi
            end_step
            complain "this shell is on no node of job $job; open one there with: srun --overlap --pty bash"
            return 1
        fi
        kill -0 "$keeper_pid" 2>/dev/null || break
        pause 0.01
    done
    read_said 3
    end_step
    [[ -n $cancelled ]] || explain
    return 1
}

# The way out that the Prolog started on this node: true when it is ready, false when it has given up. One that needs
# longer than the bound is used all the same: the gate holds requests until ssh is up.
await_prologs() {
    local now deadline
    clock
    patience
    deadline=$((now + patience_s))
    while clock && ((now < deadline)) && holder_lives "$state"; do
        read_text "$run_base/holders/$job.$restart.said"
        case $'\n'$text in *$'\n'ready\ *) return 0 ;; esac
        pause 0.02
    done
    holder_lives "$state"
}

# The way out that another shell of this job has started: true when it is ready.
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

start() {
    local count sizes outcome=0 overlap=''
    count_nodes || { complain "Slurm's number of nodes of this job is none: ${sizes[*]}" && return 1; }
    if find_state "$job.$restart" && [[ $state != "$run_base"/* ]]; then
        await_others || return 1
    elif [[ -n $state ]] && tell_others_once && await_prologs; then
        :
    else
        command -v srun >/dev/null || { complain 'srun is not on PATH' && return 1; }
        try_step '' || outcome=$?
        # One address has to serve all nodes; where some have a python3 for the gate and some have not, none uses it.
        if ((outcome == 2)); then
            outcome=0
            try_step ssh || outcome=$?
        fi
        ((outcome == 0)) || return 1
    fi
    if [[ $state != "$run_base"/* ]] && asks_overlap; then overlap='overlap '; fi
    printf '%s%s\n' "$overlap" "$state"
}

stop() {
    local tries step
    local -A fields
    find_state "$job.$restart" || return 0
    sum_up
    # The Prolog's ends with the job, by the Epilog.
    if [[ $state == "$run_base"/* ]]; then return 0; fi
    # Not the step that the job's shell knows: that one may have been killed, and this is the one that came after it.
    read_fields "$state/env" || :
    step=${fields[step]-}
    if [[ $step =~ ^[0-9]+\.[0-9]+$ ]]; then scancel --quiet --signal=URG "$step" 2>/dev/null || :; fi
    for ((tries = 0; tries < 100; tries++)); do
        holder_lives "$state" || return 0
        sleep 0.05
    done
    printf 'hpcproxy: the way out is still up; Slurm ends it with the job\n' >&2
}

state='' quiet='' caller=${2-} script=${3-} job=${SLURM_JOB_ID-} restart=${SLURM_RESTART_COUNT:-0}
if ! [[ $job =~ ^[0-9]{1,10}$ && $restart =~ ^[0-9]{1,10}$ ]]; then
    complain 'this is no Slurm job (SLURM_JOB_ID is not set)'
    exit 1
fi
find_state_base
case ${1-} in
    start) start ;;
    stop) stop ;;
    status) status ;;
    *)
        printf 'usage: job.sh start [shell] | stop | status\n' >&2
        exit 2
        ;;
esac

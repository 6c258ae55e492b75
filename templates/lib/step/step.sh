# shellcheck shell=bash
# The step that holds the tunnel on the job's nodes: its size, its command line, its life, its end.

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

# Set `command` to what runs tunnel.sh in mode $1 on all nodes of the job, or on the $3 of host list $2, as a step of
# its own that takes nothing from the others. The environment and the descriptors are then those that the step is to
# have.
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
    # One that overcommits the few CPUs that it asks for has none (_step_alloc_lps, slurmctld/step_mgr.c). By the
    # environment, for 20.11.0 to 20.11.2 have no --exact: there it is always so.
    if counts_overlap; then export SLURM_OVERCOMMIT=1 SLURM_EXACT=1; fi
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

# Run the step in mode $1 until it ends by itself; on the nodes where it is killed, by whomever, after one was ready, it
# is started anew. At the job's end Slurm kills this process too. $2 and $3 as above; $4 is the pause before.
# SIGURG ends it all: each further one asks srun in a ruder way. Other signals are for the job's programs (`scancel
# --full` sends them to every process of a batch job).
keep_step() {
    local command=() orders=(USR1 TERM KILL) told=0 srun_pid='' quiet='' line said errors dead dead_count
    local -A answers
    no_answers
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
            if ((answers[ready] && told == 0 && ${#sizes[@]} == 1)); then
                keep_step "$1" "$dead" "$dead_count" "$(($4 < 32 ? $4 * 2 + 1 : 60))" {errors}<&- &
            fi
        fi
    done
    srun_pid=''
}

# True if $1 is srun's line on tasks that were killed: `dead` is then the list of their nodes, `dead_count` their
# number.
killed_on() {
    local range
    [[ $1 =~ ^srun:\ error:\ ([][A-Za-z0-9._,-]+):\ tasks?\ ([0-9,-]+):\  ]] || return 1
    dead=${BASH_REMATCH[1]} dead_count=0
    local IFS=,
    for range in ${BASH_REMATCH[2]}; do dead_count=$((dead_count + 10#${range#*-} - 10#${range%-*} + 1)); done
}

# Each further SIGURG asks srun in a ruder way.
pass_on() {
    if [[ -n $srun_pid ]]; then kill "-${orders[told]}" "$srun_pid" 2>/dev/null || :; fi
    if ((told < 2)); then told=$((told + 1)); fi
}

# End the step that process $1 keeps and wait for it: by SIGURG to the supervisors, and if that is not enough by force.
# By the clock, for on a busy node a turn of the loop takes many times its pause. The supervisors of a job that is over
# have heard of it from Slurm; it is srun that would wait, KillWait and two seconds, for a node that refused the step
# because the job's end was there first.
end_step() {
    local now_cs begun_cs force_cs=200 more_cs=100 urg_cs=0 asked='' step
    if [[ -n $over ]]; then force_cs=100 more_cs=50; fi
    uptime_cs
    begun_cs=$now_cs
    while kill -0 "$1" 2>/dev/null && uptime_cs && ((now_cs - begun_cs < 400)); do
        read_said 3
        step=${answers[step]}
        if ((now_cs - begun_cs >= force_cs)); then
            force_cs=$((force_cs + more_cs))
            if [[ -n $step && -z $over ]]; then scancel --quiet "$step" 2>/dev/null || :; fi
            kill -URG "$1" 2>/dev/null || :
        elif [[ -z $step && -z $asked ]]; then
            # Not one has said a word. srun hears USR1 for its step, and what only begins ends of it.
            asked=1
            kill -URG "$1" 2>/dev/null || :
        elif [[ -n $step ]] && ((now_cs - begun_cs >= urg_cs)); then
            # Again and again: a supervisor that has only begun does not hear it.
            urg_cs=$((now_cs - begun_cs + 50))
            scancel --quiet --signal=URG "$step" 2>/dev/null || :
        fi
        pause 0.05
    done
    kill -URG "$1" 2>/dev/null || :
}

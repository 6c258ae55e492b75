# shellcheck shell=bash
# What the supervisors say while they start, on all nodes, and what is made of it. The step's stdout is a file without a
# name that is read while it is written (open_answers).
#
# What is known by now is in `answers`, an associative array of whoever waits (no_answers), and in `why`, the reason of
# each node that has none: ready, the number of nodes that are; out, the number of those that get out by themselves;
# hopeless, if waiting is of no use; passing, if one has failed in a way that passes; through, what those get out by that
# are ready; modes, those chosen; step, as Slurm calls it; state, this node's directory; noted, what has been said; text,
# all of it.

# Nothing has been said.
no_answers() {
    answers=([ready]=0 [out]=0 [hopeless]=0 [passing]=0 [through]='' [modes]='' [step]='' [state]='' [noted]='' [text]='')
}

# Have what the step says in descriptor 3, and what srun says in 4: without a name the files are gone with their last
# reader, and until then no signal of a job that is cancelled comes between.
open_answers() {
    local work
    trap '' HUP INT QUIT TERM USR1 USR2
    if ! { work=$(mktemp -d -- "$state_base/hpcproxy-start-XXXXXXXX") && cd -P -- "$work" && [[ -O . ]]; }; then
        complain "no directory can be made in $state_base"
        return 1
    fi
    exec 3<>said 4<>errors
    cd /
    rm -rf -- "$work"
}

# Read what the supervisors have said so far, which descriptor $1 holds, into `answers` and `why`; nothing is done if
# that is what it was the last time.
# shellcheck disable=SC2004 # subscripts of associative arrays, the caller's
read_said() {
    local -A ready_nodes=() out_nodes=()
    local verb name layer text line lines=()
    mapfile -t lines <"/proc/self/fd/$1"
    [[ ${lines[*]} != "${answers[text]}" ]] || return 0
    answers[text]=${lines[*]} answers[hopeless]=0 answers[modes]=''
    for line in "${lines[@]}"; do
        if [[ $line == "state ${SLURMD_NODENAME:-${HOSTNAME%%.*}} /"* ]]; then answers[state]=${line#state * }; fi
    done
    while read -r verb name layer text; do
        [[ $name =~ ^[A-Za-z0-9._-]+$ ]] || continue
        case $verb in
            mode)
                [[ ${answers[modes]} == *"$layer"* ]] || answers[modes]+=$layer
                if [[ $text =~ ^[0-9]+\.[0-9]+$ ]]; then answers[step]=$text; fi
                ;;
            ready)
                ready_nodes[$name]=1 && unset "why[$name]"
                if [[ $layer == direct ]]; then out_nodes[$name]=1; fi
                line=$layer${text:+ $text}
                if [[ $line == direct ]]; then line="the nodes' own route"; fi
                if [[ $line != 'the same tunnel'* && ", ${answers[through]}, " != *", $line, "* ]]; then
                    answers[through]+="${answers[through]:+, }$line"
                fi
                ;;
            failed)
                why[$name]="$layer: $text"
                if [[ $layer != key ]]; then answers[passing]=1; fi
                ;;
            gave-up) why[$name]="$layer: $text" answers[hopeless]=1 ;;
            note)
                if [[ ${answers[noted]} != *"$text"* ]]; then printf 'hpcproxy: %s\n' "$text" >&2; fi
                answers[noted]+=" $text"
                ;;
        esac
    done <"/proc/self/fd/$1"
    answers[ready]=${#ready_nodes[@]} answers[out]=${#out_nodes[@]}
}

# Say in one line that all is well: by which jump hosts, on $1 nodes, how soon. A shell says so itself; and where several
# of a job's have begun at one moment, who uses the tunnel of another has nothing to add.
tell_success() {
    local now_cs took_cs nodes=nodes
    [[ -z $silent && $caller != shell && -n ${answers[through]} ]] || return 0
    uptime_cs
    took_cs=$((now_cs - begun_cs))
    if (($1 == 1)); then nodes=node; fi
    printf 'hpcproxy: out through %s, %d %s, %d.%d s\n' "${answers[through]//[^[:print:]]/?}" "$1" "$nodes" \
        "$((took_cs / 100))" "$((took_cs % 100 / 10))" >&2
}

# Say in one sentence why there is none on $1 nodes after $2 seconds: each reason with its nodes.
explain() {
    local -A nodes_by_reason=()
    local name text sentence='' line tries
    for name in "${!why[@]}"; do nodes_by_reason[${why[$name]}]+="${nodes_by_reason[${why[$name]}]:+,}$name"; done
    for text in "${!nodes_by_reason[@]}"; do
        sentence+="${sentence:+; }${nodes_by_reason[$text]}: $text"
    done
    if [[ -z $sentence ]]; then
        while read -r line; do [[ -n $line ]] && sentence=$line; done </proc/self/fd/4
        # Slurm may tell srun of the job's end before it tells us, on a busy node by seconds; then there is nobody to tell.
        if [[ $sentence == *" job $job has expired"* ]]; then
            for ((tries = 0; tries < 200; tries++)); do [[ -n $cancelled ]] || pause 0.05; done
            if [[ -n $cancelled ]]; then return 0; fi
        fi
        if ((answers[ready])) || ! slurm_is_too_old; then
            sentence="${answers[ready]} of $1 nodes ready after $2 s${sentence:+ ($sentence)}"
        fi
    fi
    complain "$sentence"
}

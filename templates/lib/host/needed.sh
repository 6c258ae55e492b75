# shellcheck shell=bash
# What of ours Slurm would miss stays, for receive.sh.

# Fail if Slurm would miss one of the files "$@", which are to go: a pattern that matches nothing drains nodes, a missing
# TaskProlog ends every job. Where Slurm runs and does not say, the files stay: they do no harm. Where none is there is none to
# ask.
refuse_while_needed() {
    local name value file shown code=0 flags=''
    local -A going=()
    for file; do [[ -z $file ]] || going[$file]=1; done
    [[ -n $slurm_conf ]] || return 0
    shown=$(
        find_slurm || [[ -e $slurm_conf ]] || exit 3
        ask_slurm 10 show config 2>&1
    ) || code=$?
    [[ $code != 3 ]] || return 0
    ((code == 0)) || fail "whether Slurm still needs the files cannot be known, so they stay: ${shown##*$'\n'}"
    while IFS='= ' read -r name value; do
        case $name in
            TaskProlog) [[ -z ${going[${value:-none}]-} ]] || fail "slurm.conf still says TaskProlog=$value; take that out first" ;;
            PrologFlags) flags=,${value,,}, ;;
            Prolog | Prolog\[* | Epilog | Epilog\[*)
                for file in "${!going[@]}"; do refuse_if_alone "$file" "$value" "${name%%\[*}"; done
                ;;
        esac
    done <<<"$shown"
    [[ $flags != *,runinjob,* ]] || refuse_while_jobs_run
}

# Fail if the pattern $2 of $3 runs our file $1, and would run none that stays.
refuse_if_alone() {
    local IFS='' file others=0 matched=0
    shopt -s nullglob
    # shellcheck disable=SC2066,SC2086 # to be expanded, as Slurm does
    for file in $2; do
        if [[ $file -ef $1 ]]; then matched=1; elif [[ -f $file && -x $file && -z ${going[$file]-} ]]; then others=1; fi
    done
    shopt -u nullglob
    if ((matched && !others)); then fail "slurm.conf still says $3=$2, where nothing would be left to run; take that out first"; fi
}

# Fail if a job runs here: with RunInJob its slurmstepd goes on with the configuration of its start, and would miss the Epilog.
refuse_while_jobs_run() {
    local process name
    for process in /proc/[0-9]*; do
        read -r name 2>/dev/null <"$process/comm" || continue
        [[ $name == slurmstepd* && $process/ns/net -ef /proc/self/ns/net ]] || continue
        is_trusted "$process" "$name" || continue
        fail 'a job runs here, which with PrologFlags=RunInJob keeps the Epilog of its start; try again when it has ended'
    done
}

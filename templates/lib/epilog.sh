# shellcheck shell=bash
# Ends the way out of this job on this node and removes its state. Root runs it, at the end of every job, also of one
# that never had a Prolog here. Exits 0 whatever happens: anything else drains the node.
#
# Only what a file of root's names is ended, and only while the pid is still the process that was meant: its start time
# is on record too. What the user could have written is removed, never believed.

PATH=/usr/sbin:/usr/bin:/sbin:/bin

# True if process $1 that started at $2 is there.
lives() {
    start_time "$1" && [[ $started == "$2" ]]
}

# End the process $1 that started at $2: by URG, which means at once, by TERM if it is only beginning, by CONT if its user
# has stopped it; if it is still there after half a second by KILL, with all that it has started. slurmd may give an
# Epilog a second and drains a node whose Epilog takes longer.
end_process() {
    local begun now_cs killed=0
    lives "$1" "$2" || return 0
    kill -URG "$1"
    kill -TERM "$1"
    kill -CONT "$1"
    uptime_cs
    begun=$now_cs
    while ((now_cs - begun < 50)); do
        lives "$1" "$2" || return 0
        sleep 0.02
        uptime_cs
    done
    kill_family "$1"
}

# KILL process $1 and all below it. Who is stopped starts nobody and reaps nobody, so each pid stays whose it is. Bounded,
# for it is a user's, who may have started what he likes.
kill_family() {
    local child children=()
    kill -STOP "$1"
    read -r -a children <"/proc/$1/task/$1/children"
    for child in ${children[@]+"${children[@]}"}; do
        killed=$((killed + 1))
        ((killed > 64)) || kill_family "$child"
    done
    kill -KILL "$1"
}

# One line to the system's log if there never was a way out, with the reason; a log that nobody reads is not waited for.
report_failure() {
    local line last=''
    while read -r line; do
        case $line in
            ready\ *) return 0 ;;
            failed\ * | gave-up\ *) last=$line ;;
        esac
    done <"$1.said"
    if [[ -n $last ]]; then timeout 0.3 logger -t hpcproxy -- "job ${1##*/}: no way out: ${last//[[:cntrl:]]/}"; fi
}

main() {
    local record key pid since job=${SLURM_JOB_ID-} restart=${SLURM_JOB_RESTART_COUNT:-${SLURM_RESTART_COUNT-}}
    [[ $job =~ ^[0-9]{1,10}$ ]] || return 0
    for record in "$run_base/holders/$job".*[0-9]; do
        key=${record##*/}
        if ! [[ $key =~ ^[0-9]+\.[0-9]+$ && -f $record ]]; then continue; fi
        # An Epilog that comes late must not end what the Prolog of the job's next run has started.
        if [[ $restart =~ ^[0-9]{1,9}$ ]] && ((10#${key#*.} > 10#$restart)); then continue; fi
        if read -r pid since <"$record" && [[ $pid =~ ^[0-9]+$ ]]; then end_process "$pid" "$since"; fi
        report_failure "$record"
        rm -rf -- "$record" "$record.said" "${run_base:?}/$key" "$run_base/service/$key"
    done
}

(main) </dev/null >/dev/null 2>&1
exit 0

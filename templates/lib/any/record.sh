# shellcheck shell=bash
# What root has on record of a tunnel that the Prolog started, and how such a one is ended: by the Epilog, by
# `undeploy`, or by its own supervisor when the job is no longer there.
#
#   $run_base/holders/JOB.RESTART   root's, a line each: keeper PID SINCE (supervisor.sh), way PID SINCE (what it started, as the
#                                   user or the service account), group DIRECTORY (their cgroup), wall ADDRESS PORT UID
#
# Only what that file names is ended, and only while the pid is still the process that was meant: its start time is on
# record too. All of it is bounded by numbers of ours, whatever the user has left behind.

# Set `supervisor`, `tunnel` and `firewall` (arrays) and `group` from the record of $1 (JOB.RESTART); false if there is
# none.
read_record() {
    local line words
    supervisor=() tunnel=() firewall=() group=''
    while read -r line; do
        # shellcheck disable=SC2206 # words of ours
        words=($line)
        case ${words[0]-} in
            keeper) supervisor=("${words[@]:1}") ;;
            way) tunnel=("${words[@]:1}") ;;
            wall) firewall=("${words[@]:1}") ;;
            group) group=${words[1]-} ;;
            # Of a job that has begun with an earlier version, which knew no supervisor.
            [0-9]*) supervisor=("${words[@]}") tunnel=("${words[@]}") ;;
        esac
    done 2>/dev/null <"$run_base/holders/$1"
    ((${#supervisor[@]} == 2)) && [[ ${supervisor[0]} =~ ^[0-9]+$ ]]
}

# True if process $1 that started at $2 is there; one that is only waiting to be reaped is not.
lives() {
    local line fields
    read -r line 2>/dev/null <"/proc/${1:-none}/stat" || return 1
    # shellcheck disable=SC2206 # a letter and numbers
    fields=(${line##*) })
    [[ ${fields[19]} == "${2-}" && ${fields[0]} != [ZX] ]]
}

# Tell the tunnel of the record last read to end: its supervisor, which would start it anew, stands still, unless that
# is who ends it; it itself by URG, which means at once, by TERM if it is only beginning, by CONT if its user has
# stopped it.
tell_to_end() {
    if [[ ${supervisor[0]} != "$$" ]] && lives "${supervisor[@]}"; then kill -STOP "${supervisor[0]}"; fi
    lives ${tunnel[@]+"${tunnel[@]}"} || return 0
    kill -URG "${tunnel[0]}"
    kill -TERM "${tunnel[0]}"
    kill -CONT "${tunnel[0]}"
} 2>/dev/null

# End the tunnel $1 and remove all that there is of it. slurmd may give an Epilog a second and drains a node whose
# Epilog takes longer, so it has half of one to go by itself; then everything in its cgroup is killed, a daemon too that
# the user's own ssh configuration has started. Where no cgroup can be had: everything below it and in its session.
end_tunnel() {
    local now_cs begun supervisor tunnel firewall group
    if read_record "$1"; then
        tell_to_end
        lower_firewall "$1" &
        uptime_cs
        begun=$now_cs
        while lives ${tunnel[@]+"${tunnel[@]}"}; do
            uptime_cs
            ((now_cs - begun < 50)) || break
            sleep 0.02
        done
        end_rest
        wait
    fi
    scrap "$run_base/$1"
    scrap "$run_base/service/$1"
    rm -f -- "$run_base/holders/$1" "$run_base/holders/$1.said" "$run_base/holders/$1.new"
}

# KILL all that is left of the record last read.
end_rest() {
    local killed=0
    if [[ -n $group ]]; then end_group "$group"; fi
    if lives ${tunnel[@]+"${tunnel[@]}"}; then kill_family "${tunnel[0]}"; fi
    [[ ${supervisor[0]} != "$$" ]] && lives "${supervisor[@]}" || return 0
    # A session is named by the pid of its leader, which is the supervisor and stands still: the number is nobody
    # else's.
    if [[ -z $group ]]; then pkill -KILL -s "${supervisor[0]}"; fi
    kill -KILL "${supervisor[0]}"
} 2>/dev/null

# KILL process $1 and all below it. Who is stopped starts nobody and reaps nobody, so each pid stays whose it is.
# Bounded, for it is a user's, who may have started what he likes.
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

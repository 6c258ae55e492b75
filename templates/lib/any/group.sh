# shellcheck shell=bash
# A cgroup for each tunnel that the Prolog starts: what it has started, and what a user's own ssh configuration has
# started in it, can be ended whole, whatever session it has made for itself, and none of it is in the job's cgroup or
# in slurmd's.
#
# Version 2 where it is mounted, else the freezer of version 1. The name is random and on record: several nodes may
# share one kernel. The supervisor is in the directory itself, the tunnel below it in `tunnel`, which can so be ended
# without the supervisor.

# KILL all that is in the cgroup $1, itself only, and return when it is empty or after a tenth of a second or two: a
# process that hangs in the kernel ends when it comes back from there.
kill_group() {
    local pid pids tries
    for ((tries = 0; tries < 10; tries++)); do
        if [[ -e $1/cgroup.kill ]]; then
            printf '1\n' >"$1/cgroup.kill"
        else
            # Nobody starts anybody while he is frozen. In version 1 a signal is heard only after that.
            if [[ -e $1/cgroup.freeze ]]; then printf '1\n' >"$1/cgroup.freeze"; else printf 'FROZEN\n' >"$1/freezer.state"; fi
            ((tries == 0)) || sleep 0.01
            mapfile -t -n 4096 pids <"$1/cgroup.procs"
            for pid in ${pids[@]+"${pids[@]}"}; do kill -KILL "$pid"; done
            if [[ -e $1/cgroup.freeze ]]; then printf '0\n' >"$1/cgroup.freeze"; else printf 'THAWED\n' >"$1/freezer.state"; fi
        fi
        read -r pid <"$1/cgroup.procs" || return 0
        sleep 0.01
    done
} 2>/dev/null

# KILL all that is in the cgroup $1 and below it and remove it. What a process that hangs keeps from being removed is an
# empty name soon.
end_group() {
    local tries
    [[ $1 == */hpcproxy/* && -d $1 ]] || return 0
    kill_group "$1/way"
    kill_group "$1"
    for ((tries = 0; tries < 5; tries++)); do
        rmdir -- "$1/way" "$1" && return 0
        [[ -d $1 ]] || return 0
        sleep 0.01
    done
} 2>/dev/null

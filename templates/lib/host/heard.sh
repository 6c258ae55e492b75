# shellcheck shell=bash
# Waits until the slurmd of this host has heard from slurmctld at $since (seconds, this host's clock) or later, or has begun
# since, $seconds at most: from 23.11 on one that is told to read slurm.conf anew starts itself anew, and the new one has
# heard nothing for a minute or two. Where none runs there is none to wait for: it reads slurm.conf when it starts.

# True if $1 (what `scontrol show slurmd` prints) has a time for $2 that is not before $since.
is_since() {
    local at=${1#*"$2"*= }
    at=${at%%$'\n'*}
    [[ $at != "$1" && $at != NONE ]] && at=$(date -d "${at/T/ }" +%s 2>/dev/null) || return 1
    [[ $at =~ ^[0-9]+$ ]] && ((at >= since))
}

await_slurmd() {
    local shown deadline=$((SECONDS + seconds))
    if ! { find_slurm && is_slurmd; }; then return 0; fi
    while :; do
        shown=$(ask_slurm "$seconds" show slurmd 2>&1) || { printf '%s\n' "$shown" >&2 && return 1; }
        if is_since "$shown" 'Last slurmctld msg time' || is_since "$shown" 'Boot time'; then return 0; fi
        ((SECONDS < deadline)) || break
        sleep 0.3
    done
    printf 'it has not heard from slurmctld since\n' >&2
    return 1
}

await_slurmd

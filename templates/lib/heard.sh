# shellcheck shell=bash
# Waits until the slurmd of this host has heard from slurmctld at $since (seconds, this host's clock) or later, $seconds at
# most. Where none runs there is none to wait for: it reads slurm.conf when it starts.

await_slurmd() {
    local shown at='' deadline=$((SECONDS + seconds))
    if ! { find_slurm && is_slurmd; }; then return 0; fi
    while :; do
        shown=$(ask_slurm "$seconds" show slurmd 2>&1) || { printf '%s\n' "$shown" >&2 && return 1; }
        at=${shown#*Last slurmctld msg time*= }
        at=${at%%$'\n'*}
        [[ $at == "$shown" || $at == NONE ]] || at=$(date -d "${at/T/ }" +%s 2>/dev/null) || at=0
        if [[ $at =~ ^[0-9]+$ ]] && ((at >= since)); then return 0; fi
        ((SECONDS < deadline)) || break
        sleep 0.3
    done
    printf 'it has not heard from slurmctld since\n' >&2
    return 1
}

await_slurmd

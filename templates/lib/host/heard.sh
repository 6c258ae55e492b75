# shellcheck shell=bash
# Waits until the slurmd of this host has read slurm.conf since $since (seconds, this host's clock), $seconds at most. Up to
# 23.02 it does so when it hears from slurmctld. From 23.11 on it starts itself anew for it, and with that may wait for up to
# 20 s for what a job's start is in the middle of (seen with 26.05): until then it ends jobs by what it had read before.
# Where none runs there is none to wait for: it reads slurm.conf when it starts.

# True if $1 (what `scontrol show slurmd` prints) has a time for $2 that is not before $since.
is_since() {
    local at=${1#*"$2"*= }
    at=${at%%$'\n'*}
    [[ $at != "$1" && $at != NONE ]] && at=$(date -d "${at/T/ }" +%s 2>/dev/null) || return 1
    [[ $at =~ ^[0-9]+$ ]] && ((at >= since))
}

# True if the slurmd of which $1 is said has read slurm.conf since.
has_read() {
    if [[ $1 =~ Version\ *=\ *([0-9]{2})\.([0-9]{2}) ]] && ((10#${BASH_REMATCH[1]}${BASH_REMATCH[2]} < 2311)); then
        is_since "$1" 'Last slurmctld msg time' && return 0
    fi
    # Whose version is not known is taken for a new one: then the files stay, which does no harm.
    is_since "$1" 'Boot time'
}

await_slurmd() {
    local shown deadline=$((SECONDS + seconds))
    if ! { find_slurm && is_slurmd; }; then return 0; fi
    while :; do
        shown=$(ask_slurm "$seconds" show slurmd 2>&1) || { printf '%s\n' "$shown" >&2 && return 1; }
        if has_read "$shown"; then return 0; fi
        ((SECONDS < deadline)) || break
        sleep 0.3
    done
    printf 'it has not read it within %s s\n' "$seconds" >&2
    return 1
}

await_slurmd

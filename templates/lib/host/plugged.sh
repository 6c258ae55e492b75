# shellcheck shell=bash
# Tells whether the slurmd of this host has begun since $plugstack was written: it reads that when it starts, and then only.
# Prints `fresh`, `stale`, or `none` where no slurmd runs. proc(5): stat, field 22, in ticks since boot; uptime.

tell_slurmd() {
    local line fields ticks now up written
    if ! { find_slurm && is_slurmd; }; then
        printf 'none\n'
        return 0
    fi
    # All in hundredths of a second.
    read -r line <"/proc/$daemon/stat" && read -r up _ </proc/uptime || return 0
    line=${line##*) }
    # shellcheck disable=SC2206 # a letter and numbers
    fields=($line)
    ticks=$(getconf CLK_TCK)
    now=$(date +%s%2N)
    written=$(stat -L -c %.2Z -- "$plugstack" 2>/dev/null) || written=0.00
    if ((now - 10#${up/./} + fields[19] * 100 / ticks > 10#${written/./})); then printf 'fresh\n'; else printf 'stale\n'; fi
}

tell_slurmd

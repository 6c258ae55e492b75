# shellcheck shell=bash
# Time that nobody sets, and whose turn it is.

# Set `now` to the whole seconds since boot. (bash's SECONDS goes by the clock of the day, which may be put right.)
clock() {
    read -r now _ </proc/uptime
    now=${now%%.*}
}

# Set `now_cs` to the hundredths of a second since boot.
uptime_cs() {
    read -r now_cs _ </proc/uptime
    now_cs=$((10#${now_cs/./}))
}

# Set `spread_ms` to the time over which $1 nodes spread their first logins to $2 jump hosts, logins_per_s to each; none
# for few nodes. The agent reckons the same (candidate.py).
spread() {
    spread_ms=0
    if (($1 > 8)); then spread_ms=$(($1 * 1000 / (logins_per_s * ($2 > 1 ? $2 : 1)))); fi
    if ((spread_ms > 120000)); then spread_ms=120000; fi
}

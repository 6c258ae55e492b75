# shellcheck shell=bash
# Time that nobody sets.

# Set `now` to the whole seconds since boot. (bash's SECONDS goes by the clock of the day, which may be put right.)
clock() {
    read -r now _ </proc/uptime
    now=${now%%.*}
}

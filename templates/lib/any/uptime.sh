# shellcheck shell=bash
# Time that nobody sets, in small pieces.

# Set `now_cs` to the hundredths of a second since boot.
uptime_cs() {
    read -r now_cs _ </proc/uptime
    now_cs=$((10#${now_cs/./}))
}

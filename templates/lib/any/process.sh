# shellcheck shell=bash
# One process and no other.

# Set `started` to the start time of process $1 in ticks since boot (proc(5), stat, field 22); 1 if there is none.
# A pid with the same start time is the same process; a pid alone may be somebody else's by now.
start_time() {
    local line fields
    read -r line 2>/dev/null <"/proc/$1/stat" || return 1
    line=${line##*) }
    # shellcheck disable=SC2206 # a letter and numbers; a here-string would need room in /tmp
    fields=($line)
    started=${fields[19]}
}

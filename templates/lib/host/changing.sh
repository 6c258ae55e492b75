# shellcheck shell=bash
# What every change of this host needs, for receive.sh: the lock, and what is on record.

# Keep two deployments apart. Who comes adds a line of his own to the lock file, PID START-TIME, and whose is the first of a
# process that still runs has the lock: whoever was killed has lost it, and no two can think that it is theirs. The file goes
# at the end, with the lines of those who came too late: a line in a file that is there no more counts for nothing.
take_lock() {
    local pid since line owner=''
    start_time "$$" || fail '/proc cannot be read'
    line="$$ $started"
    { exec 9>>"$lock_file" && printf '\n%s\n' "$line" >&9; } 2>/dev/null || fail "no lock can be made at $lock_file"
    while read -r pid since; do
        if [[ -n $since ]] && start_time "$pid" && [[ $started == "$since" ]]; then
            owner="$pid $since"
            break
        fi
    done 2>/dev/null <"$lock_file"
    [[ $owner == "$line" && $lock_file -ef /proc/self/fd/9 ]] || fail 'another deployment is at work here'
    exec 9>&-
    lock=$lock_file debris=("$store/stage" "$store/previous.new")
}

# Fail, for the reason $2, at the directory $1. One that cannot be written is said: another host may have the same one and
# write it, and then this host is asked once more.
fail_at() {
    local place=$1
    while [[ -n $place && ! -e $place ]]; do place=${place%/*}; done
    [[ -w ${place:-/} ]] || answer "fact shut $1"
    fail "$2"
}

# Read manifest $1 into paths, digests, modes, owners.
read_manifest() {
    local digest mode owner path
    paths=() digests=() modes=() owners=()
    while read -r digest mode owner path; do
        paths+=("$path") digests+=("$digest") modes+=("$mode") owners+=("$owner")
    done 2>/dev/null <"$1"
}

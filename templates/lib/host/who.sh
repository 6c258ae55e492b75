# shellcheck shell=bash
# Every tunnel that is up on this host now, a line each, its fields between tabs: JOB.RESTART, uid, user, true or false for
# ready, since, by which jump host, requests, bytes up, bytes down. What a user could have written is read as that user,
# never as root, and bounded; of it only printable words count.

# Print the beginning of the file $2 as user $1, who may have put anything in its place.
read_as() {
    local command=(head -c 4096 -- "$2")
    if (($1 != EUID)); then command=(setpriv --reuid "$1" --regid 65534 --clear-groups -- "${command[@]}"); fi
    timeout -s KILL 2 "${command[@]}"
} 2>/dev/null

# True if process $1 that began at $2 is there.
is_there() {
    local started=''
    [[ ${1-} =~ ^[0-9]+$ ]] && start_time "$1" && [[ $started == "${2-}" ]]
}

# Print the line of tunnel $1 of user $2, whose status user $3 keeps in the directory $4.
tell() {
    local name line account
    local -A values=()
    ((told++ < most)) || return 0
    while IFS='=' read -r name line; do
        # shellcheck disable=SC2004 # the array is associative
        if [[ $name =~ ^[a-z_]+$ ]]; then values[$name]=${line//[^[:print:]]/?}; fi
    done < <(read_as "$3" "$4/status")
    account=$(timeout -s KILL 2 getent passwd "$2")
    printf '%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$2" "${account%%:*}" "${values[ready]-}" "${values[since]-}" \
        "${values[jump]-}" "${values[requests]-}" "${values[bytes_up]-}" "${values[bytes_down]-}"
}

# Those that the Prolog has started: what root has on record of them counts.
tell_prologs() {
    local record key word pid since state owner
    for record in "$run_base/holders/"*; do
        key=${record##*/}
        [[ $key =~ ^[0-9]+\.[0-9]+$ && -f $record ]] || continue
        while read -r word pid since; do
            case $word in keeper) break ;; esac
            pid=''
        done <"$record"
        is_there "$pid" "$since" || continue
        owner=$(stat -c %u -- "$run_base/$key") || continue
        state=$run_base/$key
        if [[ -d $run_base/service/$key ]]; then state=$run_base/service/$key; fi
        tell "$key" "$owner" "$(stat -c %u -- "$state")" "$state"
    done
} 2>/dev/null

# Those that jobs and shells have started by themselves.
tell_users_own() {
    local home uid state key pid since
    for home in "$temporary"/hpcproxy-*; do
        uid=${home##*-}
        [[ $uid =~ ^[0-9]+$ && -d $home && ! -L $home && $(stat -c %u -- "$home") == "$uid" ]] || continue
        for state in "$home"/*; do
            key=${state##*/}
            key=${key%-*}
            [[ $key =~ ^([0-9]+|shell)\.[0-9]+$ && -d $state && ! -L $state ]] || continue
            read -r pid since < <(read_as "$uid" "$state/pid") || continue
            # His word for it that this is a tunnel; but the process must be his.
            if is_there "$pid" "$since" && [[ $(stat -c %u -- "/proc/$pid") == "$uid" ]]; then tell "$key" "$uid" "$uid" "$state"; fi
        done
    done
} 2>/dev/null

told=0
tell_prologs
tell_users_own
exit 0

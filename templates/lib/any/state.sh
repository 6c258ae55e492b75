# shellcheck shell=bash
# The state directory of one tunnel on one node: who made it, where it is, what it says.

# Set `state_base`, and `state_home` to the one directory there in which all state directories of this user stand:
# nobody else's names are ever looked through to find them. A relative TMPDIR is another one for each process, so it is
# none.
find_state_base() {
    state_base=${TMPDIR:-/tmp}
    [[ $state_base == /* && -d $state_base && -w $state_base && $state_base != *[[:cntrl:]]* ]] || state_base=/tmp
    state_home=${state_base%/}/hpcproxy-$EUID
}

# Set `text` to what the file $1 holds, to nothing if it cannot be read. (`$(<file)` would end the script there.)
read_text() {
    local line
    text=''
    while read -r line || [[ -n $line ]]; do text+=$line$'\n'; done 2>/dev/null <"$1" || :
}

# True if the process that made the state directory $1 is still there.
supervisor_lives() {
    local pid since
    read -r pid since 2>/dev/null <"$1/pid" || return 1
    [[ $pid =~ ^[0-9]+$ ]] && start_time "$pid" && [[ $started == "$since" ]]
}

# Set `state` to the directory of the tunnel $1 (JOB.RESTART) if it is ours and its supervisor lives, else return 1. The
# one that the Prolog made (in $run_base) comes first: what an admin gave to every job needs no second one. With `ready`
# as $2 one that is up: of two that shells started at the same moment, the other is about to make way for it. On the
# job's other nodes it stands in a directory of the same name as that which this process has from its parents.
find_state() {
    local directory known=${HPCPROXY_STATE-}
    for directory in "$run_base/$1" "$known" "${known%/*}/$1-"* "$state_home/$1-"* "/tmp/hpcproxy-$EUID/$1-"*; do
        [[ ${directory##*/} == "$1" || ${directory##*/} == "$1-"* ]] || continue
        if is_ours "$directory" && supervisor_lives "$directory"; then
            if [[ ${2-} == ready ]] && ! says_ready "$directory"; then continue; fi
            state=$directory
            return 0
        fi
    done
    return 1
}

# True if $1 is a state directory of this user. The one above it is root's or ours too: who can make names there can put
# another directory of ours in the place of this one.
is_ours() {
    local above=${1%/*}
    [[ -d $1 && ! -L $1 && -O $1 && -O $1/env && ! -L $above ]] && [[ -O $above || $above == "$run_base" ]]
}

# True if the status in the state directory $1 says that the tunnel is up.
says_ready() {
    local -A values
    read_fields "$1/status" && [[ ${values[ready]-} == true ]]
}

# Set `quoted` to $1 as a JSON string.
json_string() {
    quoted=${1//[[:cntrl:]]/ }
    quoted=${quoted//\\/\\\\}
    quoted=\"${quoted//\"/\\\"}\"
}

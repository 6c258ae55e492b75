# shellcheck shell=bash
# The state directory of one way out on one node: who made it, where it is, what it says.

# Set `state_base` to where state directories are made: on a local disk, and short enough for a Unix socket's name
# (107 bytes, of which ssh wants 17 for a temporary name of its own).
find_state_base() {
    state_base=${TMPDIR:-/tmp}
    [[ -d $state_base && -w $state_base && ${#state_base} -le 48 ]] || state_base=/tmp
}

# Set `text` to what the file $1 holds, to nothing if it cannot be read. (`$(<file)` would end the script there.)
read_text() {
    local line
    text=''
    while read -r line || [[ -n $line ]]; do text+=$line$'\n'; done 2>/dev/null <"$1" || :
}

# True if the process that made the state directory $1 is still there.
holder_lives() {
    local pid since
    read -r pid since 2>/dev/null <"$1/pid" || return 1
    [[ $pid =~ ^[0-9]+$ ]] && start_time "$pid" && [[ $started == "$since" ]]
}

# Set `state` to the directory of the way out $1 (JOB.RESTART) if it is ours and its holder lives, else return 1. The one
# that the Prolog made (in $run_base) comes first: what an admin gave to every job needs no second one. With `ready` as $2
# one that is up: of two that shells started at the same moment, the other is about to make way for it.
find_state() {
    local directory
    for directory in "$run_base/$1" "${HPCPROXY_STATE-}" "$state_base/hpcproxy-$1-"*; do
        [[ ${directory##*/} == "$1" || ${directory##*/} == "hpcproxy-$1-"* ]] || continue
        if [[ -d $directory && ! -L $directory && -O $directory && -O $directory/env ]] && holder_lives "$directory"; then
            if [[ ${2-} == ready ]] && ! says_ready "$directory"; then continue; fi
            state=$directory
            return 0
        fi
    done
    return 1
}

# True if the status in the state directory $1 says that the way out is up.
says_ready() {
    local text
    read_text "$1/status.json"
    [[ $text == *'"ready": true'* ]]
}

# Set `quoted` to $1 as a JSON string.
json_string() {
    quoted=${1//[[:cntrl:]]/ }
    quoted=${quoted//\\/\\\\}
    quoted=\"${quoted//\"/\\\"}\"
}

# shellcheck shell=bash
# The state directory is made, entered, and used by names relative to it from then on. Part of tunnel.sh.
#
# What a path leads to may change after it was checked: a job empties its TMPDIR, a cleaner /tmp, and somebody else
# makes the name anew, with a control socket of his and links for our log and status. The working directory cannot
# change.

state='' given='' # the directory; it is one that root has made

# True if $1 and $2, owner and mode of a directory as stat has them (%u, %f), are of one in which nobody but root and
# this user can rename or remove what is there.
is_safe_base() {
    local map
    [[ $1 =~ ^[0-9]+$ && $2 =~ ^[0-9a-f]+$ ]] || return 1
    if (($1 == EUID)) && ! ((16#$2 & 8#022)); then return 0; fi
    if (($1 != 0)); then
        # Inside a user namespace root may show as the overflow uid.
        read -r -a map </proc/self/uid_map && [[ ${map[*]} != '0 0 4294967295' ]] && (($1 == 65534)) || return 1
    fi
    ((16#$2 & 8#1000)) || ! ((16#$2 & 8#022))
}

# Set `state_home` to a directory of this user's alone, in a base where it stays his, and `absent` if it is to be made.
# Its name is the same for all of his tunnels, so that he finds them without looking through everybody's names. Somebody
# else may have taken it in advance: then it is not used, and this tunnel has one by a random name, known to those it
# tells.
find_home() {
    local base_facts home_facts taken=$state_home
    absent=''
    { read -r -a base_facts && read -r -a home_facts; } < <(
        trap '' HUP INT TERM URG USR1 USR2
        exec stat -c '%u %f' -- "$state_base/." "$state_home" 2>/dev/null
    ) || :
    if ! is_safe_base "${base_facts[0]-}" "${base_facts[1]-}"; then
        [[ $state_base != /tmp ]] || return 1
        state_base=/tmp state_home=/tmp/hpcproxy-$EUID
        find_home
        return
    fi
    case ${home_facts[*]-} in
        "$EUID 41c0") ;; # a directory, 0700
        '') absent=1 ;;
        *)
            state_home=$(exec mktemp -d -- "$state_home-XXXXXXXX" 2>/dev/null) || return 1
            warning="$taken is not this user's alone, so this tunnel is found only by those whom it tells"
            ;;
    esac
}

# Set `state` to a new directory for $1, which is the working directory from then on; $2, where given, is the name that
# it had before. One process makes it and `state_home`, and no signal ends that half way.
make_directory() {
    local absent words made=${2-} tries
    find_state_base
    for ((tries = 0; tries < 5; tries++)); do
        find_home || return 1
        if [[ -z $made || ${made%/*} != "$state_home" ]]; then
            printf -v made '%s/%s-%08x' "$state_home" "$1" "$((RANDOM << 15 | RANDOM))"
        fi
        words=(${absent:+"$state_home"} "$made")
        if (
            trap '' HUP INT TERM URG USR1 USR2
            exec mkdir -m 0700 -- "${words[@]}" 2>/dev/null
        ) && enter_state "$made"; then return 0; fi
        # Somebody else was there first, or the last tunnel of this user has just taken `state_home` away with it.
        rmdir -- "$made" 2>/dev/null || :
        made=''
    done
    return 1
}

# Set `state` to directory $1, which is the working directory then.
enter_state() {
    if [[ -L $1 ]] || ! cd -P -- "$1" 2>/dev/null; then return 1; fi
    if [[ ! -O . ]]; then
        cd /
        return 1
    fi
    state=$1
}

# What make_directory made is gone, unless the name is another directory's by now.
remove_state() {
    local was=$state
    [[ -n $state ]] || return 0
    state=''
    if [[ . -ef $was ]]; then
        cd /
        rm -rf -- "$was" 2>/dev/null || :
    fi
    if [[ ${was%/*} == "${state_home-}" ]]; then rmdir -- "$state_home" 2>/dev/null || :; fi
}

# Fill the new state directory, for URLs of scheme $1. `pid` and `host` come last: who reads them takes the rest for
# whole.
fill_state() {
    local here
    start_time "$$"
    name_host
    { : >turn && uptime_cs && turn_cs=$now_cs && write_env "$1" "$UID" . &&
        printf '%d %s\n' "$$" "$started" >pid && printf '%s\n' "$here" >host; } 2>/dev/null || return 1
    # With the answer: whoever started us may have another TMPDIR.
    say "state $node $state"
    sweep
}

# Make and fill the state directory for URLs of scheme $1.
make_state() {
    local warning=''
    make_directory "$key" || give_up "state no directory can be made in $state_base"
    fill_state "$1" || give_up "state nothing can be written in $state_base"
    if [[ -n $warning ]]; then log error "$warning"; fi
}

# The state directory is there, for URLs of scheme $1. A job may empty its TMPDIR.
restore_state() {
    local warning='' now_cs
    if [[ . -ef $state || -n $given ]]; then return 0; fi
    if make_directory "$key" "$state" && fill_state "$1"; then
        log info 'the state directory had been removed; it was made anew'
    fi
}

# Take up the state that root has made for user $2, in mode $1: whose process it is, and, where one that was killed has
# taken it along, the environment.
take_up() {
    local url_scheme=http
    if [[ $1 == ssh ]]; then url_scheme=$scheme; fi
    start_time "$$"
    printf '%d %s\n' "$$" "$started" >pid || :
    if [[ $2 == "$UID" && ! -s env ]]; then write_env "$url_scheme" "$UID" . || :; fi
}

# The state directory is there, for URLs of mode $1: the one that root has made, $2, for user $3, or one of our own.
open_state() {
    local url_scheme=http
    if [[ -n $2 ]]; then
        given=1
        enter_state "$2" || give_up "state $2 is not this user's"
        take_up "$1" "${3:-$UID}"
        if [[ -n $uses_ssh ]]; then ask_config "$3"; fi
        return 0
    fi
    if [[ $1 == ssh ]]; then url_scheme=$scheme; fi
    make_state "$url_scheme"
}

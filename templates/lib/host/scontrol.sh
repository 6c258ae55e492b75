# shellcheck shell=bash
# Slurm's programs, where the site has them: beside the daemon that runs here, in $slurm_bin, in PATH.

# True if the process at $1 is root's or our own, or, of a slurmctld, of the account `slurm`: every user can have one that
# is called so, and what is learned from it we run. By the real uid, which no setuid program and no directory's owner hides.
is_trusted() {
    local key uid _
    while read -r key uid _; do
        [[ $key == Uid: ]] || continue
        case $uid in 0 | "$EUID") return 0 ;; esac
        [[ $2 == slurmctld && $uid == "$(timeout -s KILL 2 id -u slurm 2>/dev/null)" ]]
        return
    done 2>/dev/null <"$1/status"
    return 1
}

# Set `daemon` to the PID of a slurmd, or else a slurmctld, of this host, and lead PATH to its programs;
# false if none runs. One in another network namespace is another host's, as in a laboratory.
find_slurm() {
    local process name exe
    daemon=''
    for process in /proc/[0-9]*; do
        read -r name 2>/dev/null <"$process/comm" || continue
        [[ $name == slurmd || $name == slurmctld ]] || continue
        [[ $process/ns/net -ef /proc/self/ns/net ]] || continue
        is_trusted "$process" "$name" || continue
        exe=$(readlink -- "$process/exe") || continue
        exe=${exe% (deleted)} exe=${exe%/*}
        daemon=${process#/proc/}
        PATH=$exe:${exe%/*}/bin:$PATH
        [[ $name != slurmd ]] || break
    done
    if [[ -n ${slurm_bin-} ]]; then PATH=$slurm_bin:$PATH; fi
    [[ -n $daemon ]] || return 1
    follow_daemon
}

# True if `daemon` is a slurmd.
is_slurmd() {
    local name=''
    read -r name 2>/dev/null <"/proc/$daemon/comm"
    [[ $name == slurmd ]]
}

# Let SLURM_CONF lead to what the daemon was told to read, if it was told on its command line.
follow_daemon() {
    local word last=''
    [[ -z ${SLURM_CONF-} ]] || return 0
    while IFS= read -r -d '' word; do
        if [[ $last == -f ]]; then SLURM_CONF=$word; elif [[ $word == -f?* ]]; then SLURM_CONF=${word#-f}; fi
        last=$word
    done 2>/dev/null <"/proc/$daemon/cmdline"
    if [[ -n ${SLURM_CONF-} ]]; then export SLURM_CONF; fi
}

# Run scontrol with "${@:2}", at most $1 seconds; its last word is why it failed.
ask_slurm() {
    command -v scontrol >/dev/null 2>&1 || {
        printf 'scontrol is not in %s; say where with slurm_bin\n' "$PATH" >&2
        return 127
    }
    local code=0
    timeout -k 1 "$1" scontrol "${@:2}" || code=$?
    [[ $code != 124 ]] || printf 'no answer within %s s\n' "$1" >&2
    return "$code"
}

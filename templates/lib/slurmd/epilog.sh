# shellcheck shell=bash
# Ends the tunnel of this job on this node and removes its state. Root runs it, at the end of every job, also of one
# that never had a Prolog here. Exits 0 whatever happens: anything else drains the node.
#
# What the user could have written is taken away, never read: no number of his bounds how long this takes.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C

# With RunInJob slurmstepd forks this, and in Slurm 24.11 another thread of it may hold the job's user's effective id in
# that moment (_x11_signal_handler, slurmstepd/mgr.c): everything here would fail, and the tunnel stay. The real id is
# still root's. What cannot be had back is done without: an Epilog that fails drains the node.
if ((EUID && !UID)) && command -v setpriv >/dev/null; then
    shopt -s execfail
    exec setpriv --reuid 0 -- setpriv --regid 0 --clear-groups -- /bin/bash -p "$0"
fi

# One line to the system's log if there never was a tunnel, with the reason; a log that nobody reads is not waited for.
report_failure() {
    local line last=''
    while read -r line; do
        case $line in
            ready\ *) return 0 ;;
            failed\ * | gave-up\ *) last=$line ;;
        esac
    done < <(head -c 65536 -- "$run_base/holders/$1.said")
    if [[ -n $last ]]; then timeout 0.3 logger -t hpcproxy -- "job $1: no tunnel: ${last//[[:cntrl:]]/}"; fi
}

# Have what lies in scrap removed, by one process at a time and for at most a minute; what is left then is the next
# one's. Returns when that process has left this process group, which slurmd kills.
empty_scrap() {
    local tries line fields things=("$run_base"/scrap/*)
    [[ -e ${things[0]} || -L ${things[0]} ]] || return 0
    setsid flock -n "$run_base/scrap.lock" timeout -s KILL 60 nice -n 19 rm -rf --one-file-system -- "${things[@]}" &
    for ((tries = 0; tries < 20; tries++)); do
        read -r line <"/proc/$!/stat" || return 0
        # shellcheck disable=SC2206 # a letter and numbers
        fields=(${line##*) })
        [[ ${fields[2]} != "$!" ]] || return 0
        sleep 0.01
    done
} 2>/dev/null

main() {
    local record key job=${SLURM_JOB_ID-} restart=${SLURM_JOB_RESTART_COUNT:-${SLURM_RESTART_COUNT-}}
    [[ $job =~ ^[0-9]{1,10}$ ]] || return 0
    # Slurm runs this, so from now on our Prolog may start something.
    if [[ ! -e $home/in-force && -z ${HPCPROXY_CONTRACT-} ]]; then (umask 022 && : >"$home/in-force"); fi
    # Where only the Prolog's .said is there, its supervisor has not come far.
    for record in "$run_base/holders/$job".*; do
        key=${record##*/}
        key=${key%.said}
        if ! [[ $key =~ ^[0-9]+\.[0-9]+$ && -f $record ]]; then continue; fi
        # An Epilog that comes late must not end what the Prolog of the job's next run has started.
        if [[ $restart =~ ^[0-9]{1,9}$ ]] && ((10#${key#*.} > 10#$restart)); then continue; fi
        report_failure "$key"
        end_tunnel "$key"
    done
    empty_scrap
}

(main) </dev/null >/dev/null 2>&1
exit 0

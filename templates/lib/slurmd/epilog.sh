# shellcheck shell=bash
# Ends the tunnel of this job on this node and removes its state. Root runs it, at the end of every job, also of one
# that never had a Prolog here. Exits 0 whatever happens: anything else drains the node.
#
# What the user could have written is taken away, never read: no number of his bounds how long this takes.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C

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

# True if what Prolog and supervisor have on record of run $1 (JOB.RESTART) is this Epilog's to end: one that comes late
# must not end what the Prolog of the job's next run has started.
is_ours() {
    [[ $1 =~ ^[0-9]+\.[0-9]+$ ]] && ! { [[ $restart =~ ^[0-9]{1,9}$ ]] && ((10#${1#*.} > 10#$restart)); }
}

# With RunInJob it is slurmstepd who runs this, and while a thread of it shuts X11 forwarding down all of it has the job's
# user's effective id (_x11_signal_handler, slurmstepd/mgr.c; up to Slurm 25.11). Whom it starts in that moment has that
# for the real id too (run_command.c), so this is the user's, and root cannot be had back. Where root's is shut to us
# word is left in what is the user's; the supervisor, who is root, looks there.
leave_word() {
    local state
    for state in "$run_base/$job".*; do
        if is_ours "${state##*/}"; then : >"$state/over"; fi
    done
}

main() {
    local record key job=${SLURM_JOB_ID-} restart=${SLURM_JOB_RESTART_COUNT:-${SLURM_RESTART_COUNT-}}
    [[ $job =~ ^[0-9]{1,10}$ ]] || return 0
    # Slurm runs this, so from now on our Prolog may start something.
    if [[ ! -e $home/in-force && -z ${HPCPROXY_CONTRACT-} ]]; then (umask 022 && : >"$home/in-force"); fi
    if [[ -d $run_base/holders && ! -w $run_base/holders ]]; then
        leave_word
        return 0
    fi
    # Where only the Prolog's .said is there, its supervisor has not come far.
    for record in "$run_base/holders/$job".*; do
        key=${record##*/}
        key=${key%.said}
        if ! [[ -f $record ]] || ! is_ours "$key"; then continue; fi
        report_failure "$key"
        end_tunnel "$key"
    done
    empty_scrap
}

(main) </dev/null >/dev/null 2>&1
exit 0

# shellcheck shell=bash
# The supervisor: root's process that holds the port of a job's tunnel, starts the tunnel as the user or the service
# account, writes down what it says, and starts another when it is killed. It ends with the job: by the Epilog, or,
# where no Epilog comes, by itself.

said_bytes=65536 longest_pause_s=60

# Start the tunnel and set `tunnel` and `from`, a pipe from which what it says is read. Its user and groups are numbers,
# set by a program that looks none of them up where they begin with a plus. Nothing of root's environment reaches it, no
# setuid program raises what runs in it, and memory that it takes is not taken to be slurmd's.
start_tunnel() {
    local pipe become started listener=()
    if [[ -n ${HPCPROXY_LISTENER-} ]]; then listener=("HPCPROXY_LISTENER=$HPCPROXY_LISTENER"); fi
    become=(chroot --userspec="+$account_uid:+$account_gid" --groups="+${groups// /,+}" /)
    exec {pipe}<> <(:)
    (
        if [[ -n $group ]]; then printf '%d\n' "$BASHPID" >"$group/way/cgroup.procs" || exit 1; fi
        printf '0\n' 2>/dev/null >/proc/self/oom_score_adj || :
        # What the name of the state belongs to is this very process.
        exec "${become[@]}" setpriv --no-new-privs -- env -i \
            PATH="$PATH" HPCPROXY_HOLDER=1 HOME="$account_home" USER="$account" LOGNAME="$account" SHELL=/bin/bash \
            SLURM_JOB_ID="$job" SLURMD_NODENAME="${SLURMD_NODENAME-}" SLURM_CONF="${SLURM_CONF-}" \
            SLURM_JOB_SLUID="${SLURM_JOB_SLUID-}" SLURM_JOB_NUM_NODES="$node_count" \
            SLURM_JOB_NODELIST="${SLURM_JOB_NODELIST:-${SLURM_NODELIST-}}" ${listener[@]+"${listener[@]}"} \
            /bin/bash -p "$home/tunnel.sh" hold "$job" "$restart" "$mode" "$state" "$uid"
    ) >"/proc/self/fd/$pipe" {pipe}>&- &
    tunnel=("$!" 0)
    # Each end opened by itself: the tunnel's end is that of the pipe, and ours is heard by who still writes.
    exec {from}<"/proc/self/fd/$pipe"
    exec {pipe}>&-
    if start_time "$!"; then tunnel=("$!" "$started"); fi
    write_record "$key"
}

# Add a line to what the tunnel has said, in which only words of ours count. Bounded: a user may write as much as he
# likes.
note() {
    local line=${1//[[:cntrl:]]/ }
    case $line in
        ready\ *) word=ready ;;
        gave-up\ *) word=gave-up ;;
        mode\ * | failed\ *) ;;
        late\ *) word=late ;;
        *) return 0 ;;
    esac
    if ((noted + ${#line} >= said_bytes)); then return 1; fi
    noted=$((noted + ${#line} + 1))
    printf '%s\n' "$line" >>"$said"
}

# Read what the tunnel says until it has ended. A reader that has enough of it goes, and whoever writes hears that.
heed() {
    local line code now limit_s
    while :; do
        code=0 limit_s=$((look_s < 5 ? look_s : 5))
        if [[ -z $word ]]; then limit_s=1; fi
        read -r -n 1024 -t "$limit_s" -u "$from" line || code=$?
        if ((code == 0)); then
            note "$line" || hear_no_more
        elif ((code <= 128)); then
            hear_no_more
            lives "${tunnel[@]}" || return 0
        fi
        clock
        if [[ -z $word ]] && ((now >= late_at)); then
            note "late $node no jump host has answered within $((late_at - began_at)) s" || :
        fi
        heed_epilog
        if ((now >= look_at)); then look_for_job; fi
        [[ $code == 0 ]] || lives "${tunnel[@]}" || return 0
    done
}

# This is the end if an Epilog has come that was the job's user's and could only leave word (epilog.sh). It is left in the
# user's own directory: if he leaves it himself his own tunnel ends.
heed_epilog() {
    [[ ! -e $run_base/$key/over ]] || end_by_itself
}

# From here on nothing is heard: `from` is a pipe into which nobody writes.
hear_no_more() {
    exec {from}<&-
    exec {from}<> <(:)
}

# Keep the tunnel. `mode` to `slurmd`, its program, are what supervisor.sh has found.
keep() {
    local mode=$1 state=$2 account=$3 account_uid=$4 account_gid=$5 account_home=$6 groups=$7 node_count=$8 slurmd=$9
    local supervisor tunnel firewall group from word='' noted=0 now code pause_s=1 began_at started_at late_at look_at unseen=0
    read_record "$key" || exit 0
    job_address "$job"
    spread "$node_count" "$jump_count"
    clock
    began_at=$now look_at=$((now + look_s)) late_at=$((now + task_wait_s + (spread_ms + 999) / 1000))
    if [[ -n ${HPCPROXY_LISTENER-} ]]; then
        firewall=("$address" "$port" "$uid")
        raise_firewall || firewall=()
    fi
    while :; do
        clock
        started_at=$now
        start_tunnel
        heed
        code=0
        wait "${tunnel[0]}" || code=$?
        exec {from}<&-
        # What was said is final; told to end, or ended by a mistake that another would make as well.
        if [[ $word == gave-up ]] || ((code == 0 || code == 2)); then break; fi
        if [[ -n $group ]]; then kill_group "$group/way" || :; fi
        clock
        if ((now - started_at > longest_pause_s)); then pause_s=1; fi
        pause "$pause_s"
        pause_s=$((pause_s * 2 < longest_pause_s ? pause_s * 2 : longest_pause_s))
    done
    if ((code == 2)) && [[ $word != gave-up ]]; then note "gave-up $node supervisor it ended by an error of its own"; fi
    if [[ $word == gave-up ]]; then exit 0; fi
    # The address may still be in somebody's environment: nobody else gets it while the job is there.
    while :; do
        pause 60
        clock
        heed_epilog
        if ((now >= look_at)); then look_for_job; fi
    done
}

# A pause of $1 seconds without a process for it.
pause() {
    local quiet
    exec {quiet}<> <(:)
    read -r -t "$1" -u "$quiet" || :
    exec {quiet}<&-
}

# Where no Epilog comes nothing tells that the job is over. Seldom, and only if no process of the job is on this node,
# Slurm is asked; if it does not know the job, twice, this is the end. Where it does not answer it stays, at most a day.
look_for_job() {
    look_at=$((now + look_s))
    if job_is_here || slurm_knows_job; then
        unseen=0
        return 0
    fi
    unseen=$((unseen + 1))
    if ((unseen < 2)); then return 0; fi
    # No Epilog of ours has come: until one does, another Prolog starts nothing.
    rm -f -- "$home/in-force"
    end_by_itself
}

# True if Slurm has the job, or cannot be asked. Its programs are where the slurmd is that started us.
slurm_knows_job() {
    local answer code=0
    answer=$(PATH=$PATH:${slurmd%/sbin/*}/bin:/usr/local/bin timeout -s KILL 20 \
        squeue --noheader --jobs="$job" --format='%A %T' 2>&1 </dev/null) || code=$?
    case $'\n'$answer in
        *$'\n'"$job "*) return 0 ;;
        *'Invalid job id'*) return 1 ;;
    esac
    if ((code == 0)); then return 1; fi
    ((now - began_at < 86400))
}

# True if a process of the job is on this node that is none of ours. What has ended meanwhile, as the first search
# itself has, shows an empty environment; so the second look must find both that it is not ours and that it is still the
# job's.
job_is_here() {
    local file
    while read -r file; do
        if ! grep -q -z '^HPCPROXY_HOLDER=' "$file" 2>/dev/null && grep -q -z -x "SLURM_JOB_ID=$job" "$file" 2>/dev/null; then
            return 0
        fi
    done < <(timeout -s KILL 20 grep -l -z -x "SLURM_JOB_ID=$job" /proc/[0-9]*/environ 2>/dev/null)
    return 1
}

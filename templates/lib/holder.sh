# shellcheck shell=bash
# holder.sh JOB RESTART UID: makes the state of a job's way out on this node and becomes its holder, as the job's user or
# as the service account. The Prolog starts it in a session of its own; the Epilog ends it.
#
#   $run_base/JOB.RESTART/               the job's user's, 0700: env, pid, and in user mode what tunnel.sh and the gate keep
#   $run_base/service/JOB.RESTART/       the service account's, 0700: the same in service mode
#   $run_base/holders/JOB.RESTART        root's: pid and start time, which the Epilog believes
#   $run_base/holders/JOB.RESTART.said   what the holder says, a line each; the user may read it
#
# Whatever directory is handed to a user has its files before it is his, and stands in one of root's.

PATH=/usr/sbin:/usr/bin:/sbin:/bin
umask 022
cd /

# The last word on a way out that cannot be; who waits for one reads it.
give_up() {
    printf 'gave-up %s %s\n' "${SLURMD_NODENAME:-node}" "$1" >>"$record.said"
    exit 0
}

# Leave this process on record, unless a holder of the same job is at work here.
put_on_record() {
    local pid since
    record=$run_base/holders/$key
    mkdir -p -- "$run_base/holders" "$run_base/service"
    chmod 0755 "$run_base"
    chmod 0711 "$run_base/holders" "$run_base/service"
    if read -r pid since 2>/dev/null <"$record" && start_time "$pid" && [[ $started == "$since" ]]; then exit 0; fi
    start_time "$$"
    : >"$record.said"
    printf '%d %s\n' "$$" "$started" >"$record.new"
    mv -f -- "$record.new" "$record"
}

# Set name, id, group and directory of the account $1 as the system knows it.
look_up() {
    local entry _
    entry=$(getent passwd -- "$1") || give_up "account this node knows no user $1"
    IFS=: read -r account _ account_uid account_gid _ account_home _ <<<"$entry"
}

make_state() {
    local mode_scheme=http
    [[ $mode == gate ]] || mode_scheme=$scheme
    rm -rf -- "${run_base:?}/$key" "$run_base/service/$key"
    mkdir -m 0700 -- "$run_base/$key"
    write_env "$mode_scheme" "$account_uid" "$run_base/$key"
    printf '%d %s\n' "$$" "$started" >"$run_base/$key/pid"
    # What is in it first: once the directory is his, its names are too.
    chown -- "$uid" "$run_base/$key/pid" "$run_base/$key/env" "$record.said"
    chown -- "$uid" "$run_base/$key"
    chmod 0600 "$record.said"
    state=$run_base/$key
    if [[ -n $service_account ]]; then
        state=$run_base/service/$key
        mkdir -m 0700 -- "$state"
        chown -- "$account_uid" "$state"
    fi
}

begin() {
    local mode=gate groups
    job=$1 restart=$2 key=$1.$2 uid=$3
    [[ $1 =~ ^[0-9]{1,10}$ && $2 =~ ^[0-9]{1,10}$ && $3 =~ ^[1-9][0-9]{0,9}$ ]] || exit 0
    put_on_record
    # A user whom this node does not know has no job here, whoever runs the ssh.
    look_up "$uid"
    if [[ -n $service_account ]]; then look_up "$service_account"; fi
    ((account_uid != 0)) || give_up 'account root gets no way out'
    if [[ -z $gate ]] || ! find_python; then mode=ssh; fi
    # Without the gate nothing could keep other users of this node out of what the service's key opens.
    if [[ -n $service_account && $mode == ssh ]]; then give_up 'gate there is no python3 of 3.6 or later on this node'; fi
    job_address "$job"
    make_state
    groups=$(id -G -- "$account") || groups=$account_gid
    exec setpriv --reuid="$account_uid" --regid="$account_gid" --groups="${groups// /,}" -- env -i \
        PATH="$PATH" HOME="$account_home" USER="$account" LOGNAME="$account" SHELL=/bin/bash \
        SLURM_JOB_ID="$job" SLURMD_NODENAME="${SLURMD_NODENAME-}" SLURM_CONF="${SLURM_CONF-}" \
        SLURM_JOB_NUM_NODES="${#nodes[@]}" \
        /bin/bash -p "$home/tunnel.sh" hold "$job" "$restart" "$mode" "$state" "$uid" >>"$record.said"
}

begin "${1-}" "${2-}" "${3-}"

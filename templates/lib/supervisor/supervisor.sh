# shellcheck shell=bash
# supervisor.sh JOB RESTART UID: makes the state of a job's tunnel on this node and keeps the tunnel (supervise.sh).
# Root's; the Prolog starts it in a session of its own, the Epilog ends it and all that it has started.
#
#   $run_base/JOB.RESTART/               the job's user's, 0700: env, pid, and in user mode what tunnel.sh and the agent keep
#   $run_base/service/JOB.RESTART/       the service account's, 0700: the same in service mode
#   $run_base/holders/JOB.RESTART        root's: what the Epilog believes (record.sh)
#   $run_base/holders/JOB.RESTART.said   root's: what the tunnel has said, bounded; the user's group may read it
#
# Whatever directory is handed to a user has its files before it is his, and stands in one of root's. Accounts are
# numbers from here on: there may be a user whose name is the number of another. The name service is asked with a bound.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C
umask 022
ulimit -c 0
cd /

# The last word on a tunnel that cannot be; who waits for one reads it.
give_up() {
    printf 'gave-up %s %s\n' "$node" "$1" >>"$said"
    exit 0
}

# Leave this process on record, unless a supervisor of the same job is at work here. Before that its state is a file
# system of its own: a job that is given its own view of the file systems gets what is there when the Prolog ends.
put_on_record() {
    local supervisor tunnel firewall group
    mkdir -p -- "$run_base/holders" "$run_base/service"
    chmod 0755 "$run_base"
    chmod 0711 "$run_base/holders" "$run_base/service"
    if read_record "$key" && lives "${supervisor[@]}"; then exit 0; fi
    scrap "$run_base/$key"
    make_small "$run_base/$key"
    start_time "$$"
    : >"$said"
    supervisor=("$$" "$started") tunnel=() firewall=() group=''
    enter_group "$key"
    write_record "$key"
}

# Set name, id, group, groups and directory of the account $1 as the system knows it.
look_up() {
    local entry code=0 _
    entry=$(timeout -s KILL "$lookup_s" getent passwd -- "$1") || code=$?
    if ((code > 124)); then give_up "account the name service of this node does not answer within $lookup_s s"; fi
    if ((code)); then give_up "account this node knows no user $1"; fi
    IFS=: read -r account _ account_uid account_gid _ account_home _ <<<"$entry"
    [[ $account_uid =~ ^[0-9]+$ && $account_gid =~ ^[0-9]+$ ]] || give_up "account this node knows no user $1"
    groups=$(timeout -s KILL "$lookup_s" id -G -- "$account") || groups=$account_gid
}

make_state() {
    local mode_scheme=http
    [[ $mode == agent ]] || mode_scheme=$scheme
    write_env "$mode_scheme" "$account_uid" "$run_base/$key"
    # In user mode the tunnel itself names its process there; a service account's is not the user's to see.
    printf '%d %s\n' "$$" "$started" >"$run_base/$key/pid"
    # The name of the group for those who read, before nobody else can.
    chgrp -- "+$user_gid" "$said"
    chmod 0640 "$said"
    # What is in it first: once the directory is his, its names are too.
    chown -- "+$uid" "$run_base/$key/pid" "$run_base/$key/env"
    chown -- "+$uid" "$run_base/$key"
    state=$run_base/$key
    if [[ -n $service_account ]]; then
        state=$run_base/service/$key
        scrap "$state"
        mkdir -m 0700 -- "$state"
        chown -- "+$account_uid" "$state"
    fi
}

# The same, without anything left: no Epilog would remove it.
end_here() {
    local group=''
    if read_record "$key"; then end_by_itself; fi
    exit 0
}

begin() {
    local mode=agent account account_uid account_gid account_home user_gid groups slurmd words
    if ! [[ $1 =~ ^[0-9]{1,10}$ && $2 =~ ^[0-9]{1,10}$ && $3 =~ ^[1-9][0-9]{0,9}$ ]]; then exit 0; fi
    unset HPCPROXY_LISTENER
    # Now, while the Prolog waits for our record and its parent for it: later that pid may be anybody's.
    slurmd=$(readlink "/proc/${HPCPROXY_SLURMD:-none}/exe") || slurmd=''
    put_on_record
    # In time for a task that waits for our word.
    lookup_s=$((task_wait_s > 4 ? 4 : task_wait_s > 1 ? task_wait_s - 1 : 1))
    epilog_is_in_force || end_here
    # A user whom this node does not know has no job here, whoever runs the ssh.
    look_up "$uid"
    user_gid=$account_gid
    if [[ -n $service_account ]]; then look_up "$service_account"; fi
    ((account_uid != 0)) || give_up 'account root gets no tunnel'
    if [[ -z $agent ]] || ! find_python; then mode=ssh; fi
    # Without the agent nothing could keep other users of this node out of what the service's key opens.
    if [[ -n $service_account && $mode == ssh ]]; then give_up 'agent there is no python3 of 3.6 or later on this node'; fi
    [[ $mode == ssh || -r $home/agent.pyz ]] || give_up "agent $home/agent.pyz is missing on this node"
    job_address "$job"
    make_state
    words=(keep "$job" "$restart" "$uid" "$mode" "$state" "$account" "$account_uid" "$account_gid" "$account_home" "$groups" "${#nodes[@]}" "$slurmd")
    # Root takes the port and keeps it: no process of the user's that ends can leave it to somebody else.
    if [[ $mode == agent ]]; then
        exec "$python" -I -S "$home/agent.pyz" port "$address" "$port" "$account_uid" /bin/bash -p "$0" "${words[@]}"
    fi
    exec /bin/bash -p "$0" "${words[@]}"
}

if [[ ${1-} == keep ]]; then shift && kept=1; fi
job=${1-} restart=${2-} key=${1-}.${2-} uid=${3-} said=$run_base/holders/${1-}.${2-}.said
node=${SLURMD_NODENAME:-${HOSTNAME%%.*}}
[[ $node =~ ^[A-Za-z0-9._-]+$ ]] || node=unnamed
if [[ -n ${kept-} ]]; then
    keep "${@:4}"
else
    begin "$job" "$restart" "$uid"
fi

# shellcheck shell=bash
# Holds the tunnel of one job on one node, or probes the jump hosts.
#
#   tunnel.sh hold JOB RESTART [ssh]   as a background step of the job, one on each node; `ssh`: without the agent
#   tunnel.sh hold JOB RESTART agent    what that becomes where there is the agent, with its signals held back (hold_back)
#   tunnel.sh hold JOB RESTART MODE STATE UID   for the Prolog (supervisor.sh): MODE agent or ssh, in the directory STATE that
#                                      is there already, for user UID, who need not be the one this runs as
#   tunnel.sh hold shell 0             for a shell without Slurm, at its user's own address
#   tunnel.sh probe                    one login to each jump host; `ok JUMP [NOTE]` or `failed LAYER JUMP: REASON` for each
#   tunnel.sh credentials SECONDS      a sentence on what does not outlast a job of so many seconds, submitted now; 0: unknown
#
# The agent (agent.pyz) listens at ADDRESS:PORT and holds ssh; where there is no python3 for it, or with `agent: false`,
# ssh itself listens (`ssh -N -D ADDRESS:PORT`) and a loop here keeps it up.
#
# `hold` speaks on stdout: `state NODE DIRECTORY`, `mode NODE agent|ssh STEP`, `ready NODE JUMP` once, `failed NODE
# LAYER JUMP: REASON` for each new reason, `note NODE WHAT TEXT` for what its user should know, `gave-up …` when no
# waiting will help; it then exits 0, for a step that fails would mark the job. In a job SIGURG ends it at once, and
# SIGTERM once no other process of the job is on the node (job_processes.sh); in a shell both at once, and SIGINT and
# SIGUSR1 too.

PATH=$PATH:/usr/local/bin:/usr/bin:/bin
# A module's or conda's libraries are not the ones that the system's ssh was built with. And nobody is there to be
# asked: BatchMode says so to our ssh, and this to those that it starts for a ProxyJump.
unset LD_LIBRARY_PATH LD_PRELOAD SSH_ASKPASS DISPLAY
export SSH_ASKPASS_REQUIRE=never
# In all processes of ours, and in no other of the job: the agent and job_processes.sh know them by it.
export HPCPROXY_HOLDER=1
# The user's bounds are for what he types: they would end a wait of ours for a program on a slow node, and deep calls.
set +o posix
unset TMOUT FUNCNEST
umask 077
# No core: what ssh has in memory is the user's key.
ulimit -c 0

# Set `job`, `key`, `node` and `node_count` for run $2 of job $1, or a shell; false if those are none.
name_job() {
    [[ $1 == shell || $1 =~ ^[0-9]{1,10}$ ]] && [[ $2 =~ ^[0-9]{1,10}$ ]] || return 1
    job=$1 key=$1.$2
    node=${SLURMD_NODENAME:-${HOSTNAME%%.*}}
    [[ $node =~ ^[A-Za-z0-9._-]+$ ]] || node=unnamed
    node_count=${SLURM_JOB_NUM_NODES:-${SLURM_NNODES:-1}}
    [[ $node_count =~ ^[1-9][0-9]{0,5}$ ]] || node_count=1
}

# Set `mode` to how it is held, where $1 was asked for: by the agent if that can be.
choose_mode() {
    mode=agent
    if [[ -z $agent || $1 == ssh ]] || ! find_python; then mode=ssh; fi
    if [[ $mode == ssh && $via != ssh ]]; then
        give_up "agent there is no python3 of 3.6 or later on this node, which 'via: $via' needs"
    fi
    if [[ -n $held && $mode == ssh ]]; then give_up 'agent python3 was there a moment ago and is gone'; fi
}

# Say in which mode it is held, where $1 was asked for.
tell_mode() {
    local where='this node'
    if [[ -n $agent && $mode == ssh ]]; then
        if [[ $1 == ssh ]]; then where='some node of this job'; fi
        log info "no python3 of 3.6 or later for the agent on $where; ssh itself listens"
    fi
    say "mode $node $mode${SLURM_STEP_ID:+ $job.$SLURM_STEP_ID}"
}

# Of run $2 of job $1, in mode $3, in the state $4 of user $5, as above; what is not given is empty.
begin_hold() {
    local mode of_step='' agent_words=() turn_cs=0 note
    name_job "$1" "$2" || exit 2
    spread "$node_count" "${#jump_names[@]}"
    # The Prolog's supervisor outlives it; a step's must not outlive its slurmstepd.
    if [[ $job != shell && -z $4 ]]; then of_step=1; fi
    # Held back or not: some a shell lets through while it waits for a program's output.
    if [[ $3 == agent && -z $4 ]]; then held=1; fi
    trap_signals
    if [[ $via == ssh ]]; then
        ((${#jump_names[@]})) || give_up 'configuration no jump host is configured; run: hpcproxy init --jump USER@HOST'
        has_ssh || give_up 'ssh there is no ssh on this node; ask for the OpenSSH client'
    fi
    job_address "$job"
    choose_mode "$3"
    open_state "$mode" "$4" "$5"
    tell_mode "$3"
    learn
    if [[ -n $old_ssh && $via == ssh ]]; then give_up "ssh $old_ssh"; fi
    if [[ $mode == agent ]]; then prepare_agent "${5:-$UID}"; fi
    if [[ -z $4 ]]; then yield_to_older; fi
    await_first
    [[ -z $ending ]] || return 0
    if [[ -n $of_step && -n $uses_ssh ]]; then
        note_credentials
        if [[ -n $note ]]; then say "note $node credentials $note"; fi
    fi
    if [[ $mode == agent ]]; then
        hand_over
        return 0
    fi
    if [[ $job == shell ]]; then trap 'woken=1' USR2; else heed_signals; fi
    hold
}

case ${1-} in
    hold)
        unmute "$@"
        hold_back "${2-}" "${3-}" "${4-}"
        begin_hold "${2-}" "${3-}" "${4-}" "${5-}" "${6-}"
        ;;
    probe) probe ;;
    credentials)
        [[ ${2-} =~ ^[0-9]{1,9}$ ]] || exit 2
        credentials "$2"
        ;;
    *)
        printf 'usage: tunnel.sh hold JOB RESTART [ssh | MODE STATE UID] | probe | credentials SECONDS\n' >&2
        exit 2
        ;;
esac

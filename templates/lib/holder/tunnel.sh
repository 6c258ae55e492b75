# shellcheck shell=bash
# Holds the way out of one job on one node, or probes the jump hosts.
#
#   tunnel.sh hold JOB RESTART [ssh]   as a background step of the job, one on each node; `ssh`: without the gate
#   tunnel.sh hold JOB RESTART gate    what that becomes where there is the gate, with its signals held back (hold_back)
#   tunnel.sh hold JOB RESTART MODE STATE UID   for the Prolog (holder.sh): MODE gate or ssh, in the directory STATE that
#                                      is there already, for user UID, who need not be the one this runs as
#   tunnel.sh hold shell 0             for a shell without Slurm, at its user's own address
#   tunnel.sh probe                    one login to each jump host; `ok JUMP [NOTE]` or `failed LAYER JUMP: REASON` for each
#
# The gate (agent.pyz) listens at ADDRESS:PORT and holds ssh; where there is no python3 for it, or with `gate: false`,
# ssh itself listens (`ssh -N -D ADDRESS:PORT`) and a loop here keeps it up.
#
# `hold` speaks on stdout: `state NODE DIRECTORY`, `mode NODE gate|ssh STEP`, `ready NODE JUMP` once, `failed NODE LAYER JUMP: REASON` for each new
# reason, `note NODE WHAT TEXT` for what its user should know, `gave-up …` when no waiting will help; it then exits 0, for a step that fails would mark the job. In a job SIGURG
# ends it at once, and SIGTERM once no other process of the job is on the node (company.sh); in a shell both at once, and
# SIGINT and SIGUSR1 too.

PATH=$PATH:/usr/local/bin:/usr/bin:/bin
# A module's or conda's libraries are not the ones that the system's ssh was built with. And nobody is there to be asked:
# BatchMode says so to our ssh, and this to those that it starts for a ProxyJump.
unset LD_LIBRARY_PATH LD_PRELOAD SSH_ASKPASS DISPLAY
export SSH_ASKPASS_REQUIRE=never
# In all processes of ours, and in no other of the job: the agent and company.sh know them by it.
export HPCPROXY_HOLDER=1
umask 077
# No core: what ssh has in memory is the user's key.
ulimit -c 0

given='' death=HUP heeded='TERM,URG,INT,USR1' held='' ending='' learned='' ssh_says='' old_ssh='' told='' woken='' launching='' company_pid='' watch_pid='' ssh_pid='' pause_pid='' state='' said='' ready=0 tries='' up_at=0 changed_at=0 reconnects=-1 since=0 last_error='' current_jump=''
ssh_asking=(-G -o 'IgnoreUnknown=*' -o LogVerbose=none) asking_s=5 user_config=()

end() {
    ending=1 woken=1
    # By HUP: what Slurm sends to all processes of a job, ssh does not heed (start_ssh).
    if [[ -n $ssh_pid ]]; then signal_ssh HUP; fi
    if [[ -n $pause_pid ]]; then kill "$pause_pid" 2>/dev/null || :; fi
    if [[ -n $watch_pid ]]; then kill -KILL "$watch_pid" 2>/dev/null || :; fi
    if [[ -n $company_pid ]]; then kill -HUP "$company_pid" 2>/dev/null || :; fi
}

# Runs at every exit; $1 is the exit code. A holder that fails by a mistake of ours says so and does not mark the job.
# Signals come to every process of a step: one that ended `rm` half way would leave what nobody knows for ours.
clean_up() {
    trap '' HUP INT TERM URG USR1 USR2
    if (($1)) && [[ -z $ending ]]; then say "gave-up ${node-} holder it ended by an error of its own, code $1"; fi
    end
    end_ssh
    # The Prolog's directory stands in one of root's, whose Epilog removes what stays.
    remove_state
    exit 0
}

# One line to whoever started us (gone after a while, which is fine).
say() {
    printf '%s\n' "$*" 2>/dev/null || :
}

# One line in the log, and in the system's where an admin has rolled hpcproxy out; $1 is its level.
log() {
    local when level=$1
    shift
    case $log_level:$level in error:info | error:debug | info:debug) return 0 ;; esac
    printf -v when '%(%Y-%m-%dT%H:%M:%S%z)T' -1
    if [[ -n $state ]]; then printf '%s %s %s %s\n' "$when" "$job" "$node" "$*" 2>/dev/null >>log || :; fi
    [[ -n $syslog ]] || return 0
    # By a process of its own, and not as our child: nothing may wait for it, and `$!` stays what it is.
    (timeout -s KILL 1 logger -t "hpcproxy[$$]" -p "daemon.${level/error/err}" -- "job $job node $node: $*" &) </dev/null >/dev/null 2>&1
}

# An interruptible pause of $1 seconds: the traps run at `wait`.
pause() {
    woken='' launching=1
    sleep "$1" &
    pause_pid=$! launching=''
    heed
    wait "$pause_pid" 2>/dev/null || :
    if [[ -n $woken ]]; then kill "$pause_pid" 2>/dev/null || :; fi
    pause_pid=''
}

# A pause of $1 seconds, too short to be interrupted and too short for a process of its own.
moment() {
    local quiet
    exec {quiet}<> <(:)
    read -r -t "$1" -u "$quiet" || :
    exec {quiet}>&-
}

# Slurm's SIGTERM.
tell() {
    told=1 woken=1
    [[ -n $launching ]] || heed
}

# If there was one, have somebody watch for the moment when nobody of the job is left here. Not by the trap where that would
# change `$!` under who has just started something. Slurm sends SIGTERM twice: the second must not end the watcher, which
# as a new process would heed it until it says that it does not. Here that one is lost, and has nothing more to say.
heed() {
    [[ -n $told && -z $ending ]] || return 0
    trap '' TERM INT USR1 USR2
    told=''
    if [[ -z $company_pid ]] || ! kill -0 "$company_pid" 2>/dev/null; then
        log info "told to end; stays while other processes of the job are here"
        outstay_nobody &
        company_pid=$!
    fi
    heed_signals
}

# What a job's holder does with those that Slurm and the user send to all of its processes.
heed_signals() {
    trap tell TERM
    # Not '', which ssh would inherit and never end.
    trap 'woken=1' INT USR1 USR2
}

give_up() {
    say "gave-up $node $1"
    log error "gave up: $1"
    exit 0
}

# Two shells of a job may ask for its way out at the same moment. The holder that was there first serves both: the later
# one says so once that is ready, or takes its place if it goes.
yield_to_older() {
    local directory older=1
    # Longer than a tick of the clock that stamps files: whoever comes after that has a later stamp than our `turn`, and
    # whoever has the same is seen by us as we are by him.
    uptime_cs
    if ((now_cs - turn_cs < 3)); then moment "0.0$((3 - now_cs + turn_cs))"; fi
    while ((older)) && [[ -z $ending ]]; do
        older=0
        for directory in "$state_home/$key-"*; do
            if [[ $directory == "$state" || ! -O $directory/turn ]] || ! holder_lives "$directory"; then continue; fi
            before_us "$directory" || continue
            older=1
            if says_ready "$directory"; then
                # First gone, then said: whoever hears it must find the state of the other, not ours in its last moment.
                remove_state
                say "state $node $directory"
                say "ready $node the same way out as another shell of this job"
                exit 0
            fi
        done
        if ((older)); then pause 0.05; fi
    done
}

# True if the holder in directory $1 took its turn before us. By when it can be seen and not by when its process began:
# one that began earlier and is seen only after we have looked must not take itself for the first.
before_us() {
    [[ $1/turn -ot turn ]] && return 0
    [[ ! turn -ot $1/turn && $1 < $state ]]
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

# Set `gate_words` to the command line of the gate, for user $1.
prepare_gate() {
    gate_words=(
        ${held_back[@]+"${held_back[@]}"} "$python" -I -S "$home/agent.pyz" hold --config "$home/agent.json"
        --address "$address" --port "$port" --state "$state" --node "$node" --uid "$1"
    )
    if ((${#user_config[@]})); then gate_words+=(--ssh-config "${user_config[1]}"); fi
    if ((${#cipher[@]})); then gate_words+=(--ssh-option "${cipher[1]}"); fi
    if ((${#log_verbose[@]})); then gate_words+=(--log-verbose yes); fi
    reason=''
    look_at_key || :
    if [[ -n $reason ]]; then gate_words+=(--key-note "$reason"); fi
    if [[ $job != shell ]]; then gate_words+=(--job "$job" --nodes "$node_count"); fi
    if [[ -n $of_step ]]; then gate_words+=(--parent "$PPID"); fi
    if leads; then gate_words+=(--leads yes); fi
    if [[ $1 != "$UID" ]]; then
        find_jump_addresses
        if [[ -n $addresses ]]; then gate_words+=(--jump-addresses "$addresses"); fi
    fi
    # The Prolog's keeper has taken the port and hands it on (node/proxy/port.py).
    if [[ -n ${HPCPROXY_LISTENER-} ]]; then gate_words+=(--listener "$HPCPROXY_LISTENER"); fi
}

# Set `addresses` to what the jump hosts' names mean here, a comma between two: in service mode they are closed
# (node/state/closed.py).
find_jump_addresses() {
    local address
    addresses=''
    while read -r address _; do
        if [[ $address =~ ^[0-9A-Fa-f.:]+$ && ,$addresses, != *",$address,"* ]]; then addresses+=${addresses:+,}$address; fi
    done < <(exec timeout -s KILL 2 getent ahosts -- "${jump_destinations[@]##*@}" 2>/dev/null)
}

# Signals that whoever started us ignores (nohup, `trap '' TERM`) a shell can neither trap nor give back to what it starts:
# begin anew, with the arguments "$@", without that. Where `env` cannot do it (coreutils 8.31) ssh is ended by KILL.
unmute() {
    local line lines=() ignored=0
    mapfile -t lines <"/proc/$$/status"
    for line in "${lines[@]}"; do
        if [[ $line =~ ^SigIgn:[[:space:]]*([0-9a-f]{1,16})$ ]]; then ignored=$((16#${BASH_REMATCH[1]})); fi
    done
    # HUP, USR1, USR2, TERM, CHLD, URG (signal(7)).
    ((ignored & (1 << 0 | 1 << 9 | 1 << 11 | 1 << 14 | 1 << 16 | 1 << 22))) || return 0
    if env --default-signal=HUP --version >/dev/null 2>&1; then
        exec env --default-signal=HUP,USR1,USR2,TERM,CHLD,URG /bin/bash -p "$0" "$@"
    fi
    death=KILL
}

# In a step that is to become the gate: begin anew with the signals held back that the gate is to heed. One that comes
# before ends this process, which has nothing yet; one that comes after waits, if not for the traps, then for the gate's
# handlers. Held back only by an `env` on the way there, it could come upon the shell when that has looked at its traps
# for the last time, and be lost until Slurm kills what is left, or upon `env`, and leave the state to nobody. Where
# `env` knows no such option that remains.
hold_back() {
    if [[ $1 == shell || -n $3 || -z $gate ]] || ! find_python; then return 0; fi
    if env --block-signal="$heeded" --version >/dev/null 2>&1; then
        exec env --block-signal="$heeded" /bin/bash -p "$0" hold "$1" "$2" gate
    fi
}

# True if a signal that ends us waits, held back. (proc(5): bit 14 is SIGTERM, 22 SIGURG.)
end_waits() {
    local key value
    while read -r key value; do
        if [[ $key == @(Sig|Shd)Pnd: ]] && ((16#$value & (1 << 14 | 1 << 22))); then return 0; fi
    done <"/proc/$$/status"
    return 1
}

# Become the gate: same pid, same state directory, which it removes at its end. A SIGURG that waits would be dropped when
# the shell puts its traps back, for nothing is what it does by default; who sends one sends it again.
hand_over() {
    trap '' USR1
    if [[ -n $ending ]] || end_waits; then return 0; fi
    exec "${gate_words[@]}"
}

# True if this is the node for whose login the others of its job wait: it waits for no turn of its own.
leads() { [[ -n $of_step && -n ${HPCPROXY_FOLLOWS-} && ${SLURM_NODEID:-0} == 0 ]]; }

# In a job of many nodes all but the first wait until it is in, or its failure will pass: job.sh then says so on stdin.
await_first() {
    local now deadline line code
    if [[ -z $of_step || -z ${HPCPROXY_FOLLOWS-} ]] || leads; then return 0; fi
    clock
    deadline=$((now + connect_timeout_s + 15))
    while clock && ((now < deadline)) && [[ -z $ending ]] && ! end_waits; do
        code=0
        read -r -t 0.5 line || code=$?
        ((code > 128)) || break
    done
}

begin_hold() {
    local addresses mode=gate where='this node' of_step='' gate_words=() turn_cs=0 now_cs note
    job=$1 key=$1.$2
    [[ $1 == shell || $1 =~ ^[0-9]{1,10}$ ]] && [[ $2 =~ ^[0-9]{1,10}$ ]] || exit 2
    node=${SLURMD_NODENAME:-${HOSTNAME%%.*}}
    [[ $node =~ ^[A-Za-z0-9._-]+$ ]] || node=unnamed
    node_count=${SLURM_JOB_NUM_NODES:-${SLURM_NNODES:-1}}
    [[ $node_count =~ ^[1-9][0-9]{0,5}$ ]] || node_count=1
    spread "$node_count" "${#jump_names[@]}"
    # The Prolog's holder outlives it; a step's must not outlive its slurmstepd.
    if [[ $job != shell && -z $4 ]]; then of_step=1; fi
    # Held back or not: some a shell lets through while it waits for a program's output.
    if [[ $3 == gate && -z $4 ]]; then held=1; fi
    trap end TERM URG
    if [[ $job == shell ]]; then trap end USR1 INT; else trap 'woken=1' USR1 INT; fi
    trap 'woken=1' HUP
    trap '' PIPE
    trap 'clean_up $?' EXIT
    ((${#jump_names[@]})) || give_up 'configuration no jump host is configured; run: hpcproxy init --jump USER@HOST'
    has_ssh || give_up 'ssh there is no ssh on this node; ask for the OpenSSH client'
    job_address "$job"
    if [[ -z $gate || $3 == ssh ]] || ! find_python; then mode=ssh; fi
    if [[ -n $held && $mode == ssh ]]; then give_up 'gate python3 was there a moment ago and is gone'; fi
    if [[ -n $4 ]]; then
        given=1
        enter_state "$4" || give_up "state $4 is not this user's"
        take_up "$mode" "${5:-$UID}"
        ask_config "${5-}"
    elif [[ $mode == gate ]]; then
        make_state http
    else
        make_state "$scheme"
    fi
    if [[ -n $gate && $mode == ssh ]]; then
        if [[ $3 == ssh ]]; then where='some node of this job'; fi
        log info "no python3 of 3.6 or later for the gate on $where; ssh itself listens"
    fi
    say "mode $node $mode${SLURM_STEP_ID:+ $job.$SLURM_STEP_ID}"
    learn
    if [[ -n $old_ssh ]]; then give_up "ssh $old_ssh"; fi
    if [[ $mode == gate ]]; then prepare_gate "${5:-$UID}"; fi
    if [[ -z $4 ]]; then yield_to_older; fi
    await_first
    [[ -z $ending ]] || return 0
    if [[ -n $of_step ]]; then
        note_certificates
        if [[ -n $note ]]; then say "note $node certificate $note"; fi
    fi
    if [[ $mode == gate ]]; then
        hand_over
        return 0
    fi
    if [[ $job == shell ]]; then trap 'woken=1' USR2; else heed_signals; fi
    hold
}

# True if a channel to $2 through jump host number $1 shows that it lets through: it tried to connect, whether it could or
# not. `out` is how ssh ended, `text` its log.
try_login() {
    ssh_command "$1" -o ControlMaster=no -o ControlPath=none "${@:3}" -W "$2"
    out=0
    : >ssh.log
    (
        trap '' XFSZ
        ulimit -f 4096
        exec timeout -k 1 "$((connect_timeout_s + 15))" "${command[@]}" </dev/null >/dev/null 2>ssh.talk
    ) || out=$?
    read_text ssh.log
    ((out == 0)) || tried_to_connect '' "$text"
}

probe() {
    local jump out text
    has_ssh || { printf 'failed ssh there is no ssh on this machine\n' && return 0; }
    trap 'clean_up $?' EXIT
    make_directory probe || { printf 'failed state no directory can be made in %s\n' "$state_base" && return 0; }
    if ((${#jump_names[@]})); then learn; fi
    if [[ -n $old_ssh ]]; then printf 'failed ssh %s\n' "$old_ssh" && return 0; fi
    for jump in "${!jump_names[@]}"; do
        probe_jump "$jump"
    done
}

say_ok() {
    local note
    note_certificates
    printf 'ok %s\n' "${jump_names[$1]}${note:+ $note}"
}

probe_jump() {
    if try_login "$1" "$probe_target"; then
        say_ok "$1"
        return 0
    fi
    # One that lets through to some ports only refuses at once what it does not; in time it has tried.
    if [[ $text == *'open failed: administratively prohibited'* ]]; then
        if try_login "$1" "$probe_target_https" || [[ $out == 124 && $text == *'Authenticated to '* ]]; then
            say_ok "$1"
            return 0
        fi
    fi
    if [[ $out == 124 && $text != *'Authenticated to '* ]]; then printf 'Connection to it timed out\n' >>ssh.log; fi
    if [[ -n $identity && ! -r $identity ]]; then
        layer=key reason="the key $identity does not exist or cannot be read"
    else
        read_reason ssh.log "open failed: connect failed" ssh.talk
    fi
    printf 'failed %s %s: %s\n' "$layer" "${jump_names[$1]}" "$reason"
}

case ${1-} in
    hold)
        unmute "$@"
        hold_back "${2-}" "${3-}" "${4-}"
        begin_hold "${2-}" "${3-}" "${4-}" "${5-}" "${6-}"
        ;;
    probe) probe ;;
    *)
        printf 'usage: tunnel.sh hold JOB RESTART [ssh | MODE STATE UID] | probe\n' >&2
        exit 2
        ;;
esac

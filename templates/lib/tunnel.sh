# shellcheck shell=bash
# Holds the way out of one job on one node, or probes the jump hosts.
#
#   tunnel.sh hold JOB RESTART [ssh]   as a background step of the job, one on each node; `ssh`: without the gate
#   tunnel.sh hold JOB RESTART MODE STATE UID   for the Prolog (holder.sh): MODE gate or ssh, in the directory STATE that
#                                      is there already, for user UID, who need not be the one this runs as
#   tunnel.sh hold shell 0             for a shell without Slurm, at 127.0.0.1
#   tunnel.sh probe                    one login to each jump host; `ok JUMP` or `failed LAYER JUMP: REASON` for each
#
# The gate (agent.pyz) listens at ADDRESS:PORT and holds ssh; where there is no python3 for it, or with `gate: false`,
# ssh itself listens (`ssh -N -D ADDRESS:PORT`) and a loop here keeps it up.
#
# `hold` speaks on stdout: `mode NODE gate|ssh STEP`, `ready NODE JUMP` once, `failed NODE LAYER JUMP: REASON` for each new
# reason, `gave-up …` when no waiting will help; it then exits 0, for a step that fails would mark the job. In a job SIGURG
# ends it at once, and SIGTERM once no other process of the job is on the node (company.sh); in a shell both at once, and
# SIGINT and SIGUSR1 too.

PATH=$PATH:/usr/local/bin:/usr/bin:/bin
# A module's or conda's libraries are not the ones that the system's ssh was built with.
unset LD_LIBRARY_PATH LD_PRELOAD
# In all processes of ours, and in no other of the job: the agent and company.sh know them by it.
export HPCPROXY_HOLDER=1
umask 077

ending='' told='' woken='' launching='' company_pid='' ssh_pid='' pause_pid='' state='' said='' ready=0 reconnects=-1 since=0 last_error='' current_jump=''

end() {
    ending=1 woken=1
    # By HUP: what Slurm sends to all processes of a job, ssh does not heed (start_ssh).
    if [[ -n $ssh_pid ]]; then kill -HUP "$ssh_pid" 2>/dev/null || :; fi
    if [[ -n $pause_pid ]]; then kill "$pause_pid" 2>/dev/null || :; fi
    if [[ -n $company_pid ]]; then kill -HUP "$company_pid" 2>/dev/null || :; fi
}

# Runs at every exit; $1 is the exit code. A holder that fails by a mistake of ours says so and does not mark the job.
clean_up() {
    if (($1)) && [[ -z $ending ]]; then say "gave-up ${node-} holder it ended by an error of its own, code $1"; fi
    end
    end_ssh
    # The Prolog's directory stands in one of root's, whose Epilog removes what stays.
    if [[ -n $state ]]; then rm -rf -- "$state" 2>/dev/null || :; fi
    exit 0
}

# One line to whoever started us (gone after a while, which is fine) and to the log.
say() {
    printf '%s\n' "$*" 2>/dev/null || :
    log "$*"
}

log() {
    [[ -n $state ]] || return 0
    printf '%(%Y-%m-%dT%H:%M:%S%z)T %s\n' -1 "$*" 2>/dev/null >>"$state/log" || :
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

# Slurm's SIGTERM.
tell() {
    told=1 woken=1
    [[ -n $launching ]] || heed
}

# If there was one, have somebody watch for the moment when nobody of the job is left here. Not by the trap where that would
# change `$!` under who has just started something.
heed() {
    [[ -n $told && -z $ending ]] || return 0
    told=''
    if [[ -n $company_pid ]] && kill -0 "$company_pid" 2>/dev/null; then return 0; fi
    log "told to end; stays while other processes of the job are here"
    outstay_nobody &
    company_pid=$!
}

# Start `command` with its stderr in ssh.log. Slurm sends SIGTERM to all processes of a job that ends, and users send
# other signals to them: ssh serves on. It goes with the holder, where the system knows how.
start_ssh() {
    launching=1
    (
        trap '' TERM INT QUIT USR1 USR2
        exec ${follow[@]+"${follow[@]}"} "${command[@]}" </dev/null >/dev/null 2>"$state/ssh.log"
    ) &
    ssh_pid=$! launching=''
    heed
}

# Wait for the end of ssh. A trap ends every `wait`, whatever it waits for.
await_ssh() {
    while [[ -z $ending ]]; do
        woken=''
        wait "$ssh_pid" 2>/dev/null || :
        [[ -n $woken ]] || break
    done
}

# ssh is gone: told to end, or after a second by force.
end_ssh() {
    local tries
    [[ -n $ssh_pid ]] || return 0
    kill -HUP "$ssh_pid" 2>/dev/null || :
    for ((tries = 0; tries < 50; tries++)); do
        kill -0 "$ssh_pid" 2>/dev/null || break
        sleep 0.02
    done
    if ((tries == 50)); then kill -KILL "$ssh_pid" 2>/dev/null || :; fi
    wait "$ssh_pid" 2>/dev/null || :
    ssh_pid=''
}

# Write status.json: what `hpcproxy status` reads. By rename, so that no reader sees half of it.
write_status() {
    local jump=null error=null up=false
    if [[ -n $current_jump ]]; then json_string "$current_jump" && jump=$quoted up=true; fi
    if [[ -n $last_error ]]; then json_string "$last_error" && error=$quoted; fi
    # A full disk costs the status, never the way out.
    if printf '{"version": 1, "node": "%s", "address": "%s", "port": %d, "mode": "ssh", "ready": %s, "since": %d, "jump": %s, "reconnects": %d, "last_error": %s, "pid": %d}\n' \
        "$node" "$address" "$port" "$up" "$since" "$jump" \
        "$((reconnects > 0 ? reconnects : 0))" "$error" "$$" 2>/dev/null >"$state/status.new"; then
        mv -f -- "$state/status.new" "$state/status.json" || :
    fi
}

# `command -v` also finds what may not be run.
has_ssh() {
    [[ -x $(command -v ssh) ]]
}

# Set `follow` to the words that end ssh when this process is gone, killed or not, where there is such a program.
find_follow() {
    follow=()
    if setpriv --pdeathsig HUP true 2>/dev/null; then follow=(setpriv --pdeathsig HUP); fi
}

# Set `cipher` to the words that put AES-GCM first, or to nothing. Asked of ssh itself: an older one does not know the
# `^`, and one built without AES-GCM refuses its name.
cipher_words() {
    cipher=()
    if ssh -G -o "$cipher_option" localhost >/dev/null 2>&1 </dev/null; then cipher=(-o "$cipher_option"); fi
}

# Set `command` to ssh with our options and what "$@" adds, to jump host number $1.
ssh_command() {
    local jump=$1
    shift
    cipher_words
    command=(ssh "${ssh_options[@]}" ${cipher[@]+"${cipher[@]}"})
    if [[ -n ${jump_ports[jump]} ]]; then command+=(-p "${jump_ports[jump]}"); fi
    command+=("$@" -- "${jump_destinations[jump]}")
}

# True once the master's control socket is there: login done and the port ours (ExitOnForwardFailure).
await_master() {
    local deadline=$((SECONDS + connect_timeout_s + 5))
    until [[ -S $state/ctl ]]; do
        [[ -z $ending ]] && kill -0 "$ssh_pid" 2>/dev/null && ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# True if a channel through the master comes back from the jump host's closed port. Touches no service.
probe_master() {
    if timeout "$connect_timeout_s" ssh -F /dev/null -S "$state/ctl" -W "$probe_target" -- probe >/dev/null 2>&1 </dev/null; then
        return 0
    fi
    read_text "$state/ssh.log"
    [[ $text == *'open failed: connect failed'* ]]
}

# Hold a forward through jump host number $1 until it ends; true if it was ever up.
hold_through() {
    local jump=$1 up=1
    rm -f -- "$state/ctl"
    ssh_command "$jump" -N -M -S "$state/ctl" -D "$address:$port"
    start_ssh
    if await_master && probe_master; then
        up=0
        came_up "$jump"
        await_ssh
        went_down
    fi
    end_ssh
    return "$up"
}

came_up() {
    current_jump=${jump_names[$1]}
    printf -v since '%(%s)T' -1
    reconnects=$((reconnects + 1)) said=''
    write_status
    if ((ready)); then
        log "up again through $current_jump"
    else
        ready=1
        say "ready $node $current_jump"
    fi
}

went_down() {
    [[ -n $ending ]] && return 0
    read_reason "$state/ssh.log" "open failed: "
    last_error="$current_jump: $layer: $reason" current_jump=''
    log "down: $last_error"
    write_status
}

# Say why jump host number $1 did not serve, once for each new reason.
failed() {
    if [[ -n $identity && ! -r $identity ]]; then
        layer=key reason="the key $identity does not exist or cannot be read" permanent=1
    else
        read_reason "$state/ssh.log" "open failed: connect failed"
    fi
    last_error="${jump_names[$1]}: $layer: $reason"
    [[ $said == *"$last_error"* ]] || say "failed $node $layer ${jump_names[$1]}: $reason"
    said+=$last_error
    write_status
}

give_up() {
    say "gave-up $node $1"
    exit 0
}

# Try the jump hosts in turn for as long as the job lives, with growing pauses between rounds.
hold() {
    local wait_s=1 jump hopeless up
    while [[ -z $ending ]]; do
        hopeless=0 up=0
        for jump in "${!jump_names[@]}"; do
            if hold_through "$jump"; then
                up=1 wait_s=1
                break
            fi
            [[ -z $ending ]] || return 0
            failed "$jump"
            hopeless=$((hopeless + permanent))
            if ((!ready)) && [[ $layer == port ]]; then give_up "$layer $reason"; fi
        done
        if ((!ready && hopeless == ${#jump_names[@]})); then give_up "$layer ${jump_names[jump]}: $reason"; fi
        [[ -n $ending ]] && return 0
        ((up)) || pause "$wait_s"
        wait_s=$((wait_s * 2 < retry_max_s ? wait_s * 2 : retry_max_s))
    done
}

# Two shells of a job may ask for its way out at the same moment. The holder that was there first serves both: the later
# one says so once that is ready, or takes its place if it goes.
yield_to_older() {
    local directory older=1
    # Longer than a tick of the clock that stamps files: whoever comes after this pause has a later stamp than ours, and
    # whoever has the same is seen by us as we are by him.
    : >"$state/turn"
    pause 0.02
    while ((older)) && [[ -z $ending ]]; do
        older=0
        for directory in "$state_base/hpcproxy-$key-"*; do
            if [[ $directory == "$state" || ! -O $directory/turn ]] || ! holder_lives "$directory"; then continue; fi
            before_us "$directory" || continue
            older=1
            if says_ready "$directory"; then
                # First gone, then said: whoever hears it must find the state of the other, not ours in its last moment.
                rm -rf -- "$state"
                state=''
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
    [[ $1/turn -ot $state/turn ]] && return 0
    [[ ! $state/turn -ot $1/turn && $1 < $state ]]
}

# Make and fill the state directory for URLs of scheme $1.
make_state() {
    find_state_base
    state=$(mktemp -d -- "$state_base/hpcproxy-$key-XXXXXXXX") || give_up "state no directory can be made in $state_base"
    start_time "$$"
    if ! { printf '%d %s\n' "$$" "$started" >"$state/pid" && write_env "$1" "$UID" "$state"; }; then
        give_up "state nothing can be written in $state_base"
    fi
}

# Become the gate, for user $1: same pid, same state directory, which it removes at its end.
hand_over() {
    local held_back=() words=(
        hold --config "$home/agent.json" --address "$address" --port "$port" --state "$state" --node "$node" --uid "$1"
    )
    cipher_words
    if ((${#cipher[@]})); then words+=(--ssh-option "${cipher[1]}"); fi
    reason=''
    look_at_key
    if [[ -n $reason ]]; then words+=(--key-note "$reason"); fi
    if [[ $job != shell ]]; then words+=(--job "$job"); fi
    # A signal that comes before the gate has its handlers must not end it with its state left behind. Where `env` cannot
    # hold them back (before coreutils 8.31) the gate does so as soon as it runs.
    if env --block-signal='TERM,URG,INT,USR1' true 2>/dev/null; then
        held_back=(env --block-signal='TERM,URG,INT,USR1')
    fi
    trap '' USR1
    [[ -z $ending ]] || return 0
    exec ${held_back[@]+"${held_back[@]}"} "$python" -I "$home/agent.pyz" "${words[@]}"
}

begin_hold() {
    local mode=gate where='this node'
    job=$1 key=$1.$2
    [[ $1 == shell || $1 =~ ^[0-9]{1,10}$ ]] && [[ $2 =~ ^[0-9]{1,10}$ ]] || exit 2
    node=${SLURMD_NODENAME:-${HOSTNAME%%.*}}
    [[ $node =~ ^[A-Za-z0-9._-]+$ ]] || node=unnamed
    trap end TERM URG
    if [[ $job == shell ]]; then trap end USR1 INT; else trap 'woken=1' USR1 INT; fi
    # Not '', which ssh would inherit and never end.
    trap 'woken=1' HUP
    trap '' PIPE
    trap 'clean_up $?' EXIT
    ((${#jump_names[@]})) || give_up 'configuration no jump host is configured; run: hpcproxy init --jump USER@HOST'
    has_ssh || give_up 'ssh there is no ssh on this node; ask for the OpenSSH client'
    job_address "$job"
    if [[ -z $gate || $3 == ssh ]] || ! find_python; then mode=ssh; fi
    if [[ -n $4 ]]; then
        state=$4
    elif [[ $mode == gate ]]; then
        make_state http
    else
        make_state "$scheme"
    fi
    if [[ -n $gate && $mode == ssh ]]; then
        if [[ $3 == ssh ]]; then where='some node of this job'; fi
        log "no python3 of 3.6 or later for the gate on $where; ssh itself listens"
    fi
    say "mode $node $mode${SLURM_STEP_ID:+ $job.$SLURM_STEP_ID}"
    if [[ -z $4 ]]; then yield_to_older; fi
    [[ -z $ending ]] || return 0
    if [[ $mode == ssh ]]; then
        if [[ $job != shell ]]; then trap tell TERM; fi
        trap 'woken=1' USR2
        find_follow
        hold
    else
        hand_over "${5:-$UID}"
    fi
}

probe() {
    local jump out text
    has_ssh || { printf 'failed ssh there is no ssh on this machine\n' && return 0; }
    find_state_base
    trap 'clean_up $?' EXIT
    state=$(mktemp -d -- "$state_base/hpcproxy-probe-XXXXXXXX")
    for jump in "${!jump_names[@]}"; do
        ssh_command "$jump" -o ControlPath=none -W "$probe_target"
        out=0
        timeout "$((connect_timeout_s + 15))" "${command[@]}" </dev/null >/dev/null 2>"$state/ssh.log" || out=$?
        read_text "$state/ssh.log"
        if ((out == 0)) || [[ $text == *'open failed: connect failed'* ]]; then
            printf 'ok %s\n' "${jump_names[jump]}"
            continue
        fi
        ((out == 124)) && printf 'timed out\n' >>"$state/ssh.log"
        if [[ -n $identity && ! -r $identity ]]; then
            layer=key reason="the key $identity does not exist or cannot be read"
        else
            read_reason "$state/ssh.log" "open failed: connect failed"
        fi
        printf 'failed %s %s: %s\n' "$layer" "${jump_names[jump]}" "$reason"
    done
}

case ${1-} in
    hold) begin_hold "${2-}" "${3-}" "${4-}" "${5-}" "${6-}" ;;
    probe) probe ;;
    *)
        printf 'usage: tunnel.sh hold JOB RESTART [ssh | MODE STATE UID] | probe\n' >&2
        exit 2
        ;;
esac

#!/bin/bash
# hpcproxy tunnel.sh: rendered from the configuration; a change belongs there, not here.
set -euo pipefail

home=/home/alice/.hpcproxy
run_base=/run/hpcproxy
port=2015
gate=1
scheme=socks5h
identity=''
connect_timeout_s=10
retry_max_s=30
alive_interval_s=5
alive_count=3
logins_per_s=32
log_level=info
syslog=''
linger_s=''
bypass_private=1
cipher_option='Ciphers=^aes128-gcm@openssh.com'
probe_target=127.0.0.1:1
no_proxy_more=()
jump_names=()
jump_destinations=()
jump_ports=()
ssh_options=(
    -T
    -x
    -a
    -o
    BatchMode=yes
    -o
    RemoteCommand=none
    -o
    PermitLocalCommand=no
    -o
    StrictHostKeyChecking=yes
    -o
    'UserKnownHostsFile="/home/alice/.hpcproxy/known_hosts"'
    -o
    GlobalKnownHostsFile=/dev/null
    -o
    UpdateHostKeys=no
    -o
    CheckHostIP=no
    -o
    ExitOnForwardFailure=yes
    -o
    ConnectTimeout=10
    -o
    ConnectionAttempts=1
    -o
    ServerAliveInterval=5
    -o
    ServerAliveCountMax=2
    -o
    TCPKeepAlive=yes
    -o
    LogLevel=INFO
    -o
    ControlPersist=no
)
failure_texts=(
    'Address already in use'
    'REMOTE HOST IDENTIFICATION HAS CHANGED'
    'Host key verification failed'
    'host key is known for'
    'administratively prohibited'
    'Could not resolve hostname'
    'No route to host'
    'Network is unreachable'
    'banner exchange'
    'timed out'
    'not responding'
    'Connection refused'
    'Too many authentication failures'
    'Permission denied ('
    'Bad configuration option'
    'Bad owner or permissions'
    exchange_identification
    'Connection closed by'
    'Connection reset by'
)
failure_layers=(
    port
    host-key
    host-key
    host-key
    forwarding
    name
    route
    route
    route
    route
    route
    route
    key
    key
    ssh
    ssh
    busy
    ssh
    ssh
)
failure_reasons=(
    'the port is taken by another process of this node and nothing of theirs is used; choose another port'
    'the jump host shows another key than the one pinned; ask its admin, then run: hpcproxy init --replace-key'
    'the jump host'"'"'s key is not pinned; run: hpcproxy init --jump USER@HOST'
    'the jump host'"'"'s key is not pinned; run: hpcproxy init --jump USER@HOST'
    'the jump host does not allow forwarding; ask your site, this is its rule to change'
    'its name does not resolve here; use its address'
    'no route to it from here'
    'no route to it from here'
    'it accepts connections and stays silent'
    'it does not answer; is its address right, its firewall open?'
    'it stopped answering'
    'nothing listens at its ssh port'
    'it refused too many keys; name the right one with: hpcproxy init --identity'
    'it refused the key; is the public half in its authorized_keys?'
    'ssh does not know an option in ~/.ssh/config'
    'the permissions of ~/.ssh/config are too wide'
    'it hung up before the login: it has too many logins at once, or shuts this cluster'"'"'s address out for a while'
    'it hung up'
    'it hung up'
)
failure_permanent=(
    1
    1
    1
    1
    1
    0
    0
    0
    0
    0
    0
    0
    1
    1
    1
    1
    0
    0
    0
)

# shellcheck shell=bash
# One process and no other.

# Set `started` to the start time of process $1 in ticks since boot (proc(5), stat, field 22); 1 if there is none.
# A pid with the same start time is the same process; a pid alone may be somebody else's by now.
start_time() {
    local line fields
    read -r line 2>/dev/null <"/proc/$1/stat" || return 1
    read -r -a fields <<<"${line##*) }"
    started=${fields[19]}
}

# shellcheck shell=bash
# Time that nobody sets, and whose turn it is.

# Set `now` to the whole seconds since boot. (bash's SECONDS goes by the clock of the day, which may be put right.)
clock() {
    read -r now _ </proc/uptime
    now=${now%%.*}
}

# Set `spread_ms` to the time over which $1 nodes spread their first logins to $2 jump hosts, logins_per_s to each; none
# for few nodes. The agent reckons the same (candidate.py).
spread() {
    spread_ms=0
    if (($1 > 8)); then spread_ms=$(($1 * 1000 / (logins_per_s * ($2 > 1 ? $2 : 1)))); fi
    if ((spread_ms > 120000)); then spread_ms=120000; fi
}

# shellcheck shell=bash
# The state directory of one way out on one node: who made it, where it is, what it says.

# Set `state_base` to where state directories are made: on a local disk, and short enough for a Unix socket's name
# (107 bytes, of which ssh wants 17 for a temporary name of its own).
find_state_base() {
    state_base=${TMPDIR:-/tmp}
    [[ -d $state_base && -w $state_base && ${#state_base} -le 48 ]] || state_base=/tmp
}

# Set `text` to what the file $1 holds, to nothing if it cannot be read. (`$(<file)` would end the script there.)
read_text() {
    local line
    text=''
    while read -r line || [[ -n $line ]]; do text+=$line$'\n'; done 2>/dev/null <"$1" || :
}

# True if the process that made the state directory $1 is still there.
holder_lives() {
    local pid since
    read -r pid since 2>/dev/null <"$1/pid" || return 1
    [[ $pid =~ ^[0-9]+$ ]] && start_time "$pid" && [[ $started == "$since" ]]
}

# Set `state` to the directory of the way out $1 (JOB.RESTART) if it is ours and its holder lives, else return 1. The one
# that the Prolog made (in $run_base) comes first: what an admin gave to every job needs no second one. With `ready` as $2
# one that is up: of two that shells started at the same moment, the other is about to make way for it.
find_state() {
    local directory
    for directory in "$run_base/$1" "${HPCPROXY_STATE-}" "$state_base/hpcproxy-$1-"*; do
        [[ ${directory##*/} == "$1" || ${directory##*/} == "hpcproxy-$1-"* ]] || continue
        if [[ -d $directory && ! -L $directory && -O $directory && -O $directory/env ]] && holder_lives "$directory"; then
            if [[ ${2-} == ready ]] && ! says_ready "$directory"; then continue; fi
            state=$directory
            return 0
        fi
    done
    return 1
}

# True if the status in the state directory $1 says that the way out is up.
says_ready() {
    local text
    read_text "$1/status.json"
    [[ $text == *'"ready": true'* ]]
}

# Set `quoted` to $1 as a JSON string.
json_string() {
    quoted=${1//[[:cntrl:]]/ }
    quoted=${quoted//\\/\\\\}
    quoted=\"${quoted//\"/\\\"}\"
}

# shellcheck shell=bash
# The nodes of a job, expanded without asking Slurm, and the no_proxy list made from them.

# Add to the array `nodes` every name that the host list $1 stands for: c[1-3,007-009],login1,r[1-2]n[1-2].
# Returns 1, with `nodes` incomplete, for anything that is no host list.
expand_nodes() {
    local rest=$1 part='' depth=0 char
    while [[ -n $rest ]]; do
        char=${rest:0:1} rest=${rest:1}
        case $char in
            '[') depth=$((depth + 1)) part+=$char ;;
            ']') depth=$((depth - 1)) part+=$char ;;
            ,)
                if ((depth)); then
                    part+=$char
                else
                    expand_part "$part" || return 1
                    part=''
                fi
                ;;
            [A-Za-z0-9._-]) part+=$char ;;
            *) return 1 ;;
        esac
        ((depth == 0 || depth == 1)) || return 1
    done
    ((depth == 0)) || return 1
    expand_part "$part"
}

# One comma-free element: its first bracket is expanded here, the rest by recursion.
expand_part() {
    local part=$1 before inside after range low high width number number_text
    if [[ $part != *'['* ]]; then
        [[ -n $part ]] && nodes+=("$part")
        return
    fi
    before=${part%%'['*} after=${part#*']'} inside=${part#*'['}
    inside=${inside%%']'*}
    [[ -n $inside && $inside != *, ]] || return 1
    local IFS=,
    for range in $inside; do
        low=${range%-*} high=${range#*-}
        [[ $low =~ ^[0-9]{1,9}$ && $high =~ ^[0-9]{1,9}$ ]] || return 1
        ((10#$high - 10#$low < 65536)) || return 1
        width=${#low}
        for ((number = 10#$low; number <= 10#$high; number++)); do
            printf -v number_text '%0*d' "$width" "$number"
            expand_part "$before$number_text$after" || return 1
        done
    done
}

# Set the array `nodes` for the job this runs in; Slurm is asked only where the list is of a kind unknown here.
job_nodes() {
    nodes=()
    local list=${SLURM_JOB_NODELIST:-${SLURM_NODELIST-}} name
    # Of a heterogeneous job all components; Slurm says them only to the batch script and its steps.
    for name in ${!SLURM_JOB_NODELIST_HET_GROUP_*}; do
        if [[ $name == *_0 ]]; then list=''; fi
        list+=${list:+,}${!name}
    done
    if [[ -n $list ]] && ! expand_nodes "$list"; then
        nodes=()
        while read -r name; do
            [[ $name =~ ^[A-Za-z0-9._-]+$ ]] && nodes+=("$name")
        done < <(scontrol show hostnames "$list" 2>/dev/null)
    fi
    return 0
}

# Set `domain` to the cluster's domain as this node's resolver has it, or to nothing.
cluster_domain() {
    local key value
    domain=''
    while read -r key value _; do
        case $key in domain | search) domain=$value ;; esac
    done 2>/dev/null </etc/resolv.conf
    [[ $domain =~ ^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$ ]] || domain=''
}

# Set `direct` to the no_proxy list: what is reached without the way out. `$1` 1 adds the private networks.
# Names and addresses both, because half of the clients do not know networks and the other half resolve first.
no_proxy_list() {
    local bypass_private=$1 entries=(localhost 127.0.0.1 ::1 0.0.0.0) node address last='' _
    shift
    job_nodes
    cluster_domain
    for node in ${nodes[@]+"${nodes[@]}"}; do
        entries+=("$node")
        [[ -n $domain && $node != *.* ]] && entries+=("$node.$domain")
    done
    if ((${#nodes[@]})); then
        # Bounded: a resolver that does not answer must not hold the job up.
        while read -r address _; do
            if [[ $address =~ ^[0-9.]+$ && $address != 127.* && $address != "$last" ]]; then entries+=("$address"); fi
            last=$address
        done < <(timeout 2 getent ahostsv4 -- "${nodes[@]}" 2>/dev/null | sort -u)
    fi
    # One variable may hold 128 KiB (MAX_ARG_STRLEN); far below it, a list this long helps nobody.
    local IFS=, joined
    joined="${entries[*]}"
    ((${#joined} <= 32768)) || entries=(localhost 127.0.0.1 ::1 0.0.0.0)
    [[ -n $domain ]] && entries+=(".$domain")
    entries+=(.local 169.254.169.254)
    [[ -n $bypass_private ]] && entries+=(10.0.0.0/8 172.16.0.0/12 192.168.0.0/16)
    direct="${entries[*]}${*:+,$*}"
}

# shellcheck shell=bash
# What ssh's words mean. The tables failure_texts, _layers, _reasons, _permanent stand at the top of the script.

# Set layer, reason and permanent from the file $1 that holds ssh's stderr. Lines that hold $2 tell of a channel that was
# not opened, our own probe's or a program's, and nothing of the connection.
read_reason() {
    local text words='' line last='' i
    read_text "$1"
    while read -r line; do
        [[ -n $line && $line != *"$2"* ]] || continue
        words+=$line$'\n' last=${line//[[:cntrl:]]/}
    done <<<"$text"
    for i in "${!failure_texts[@]}"; do
        if [[ $words == *"${failure_texts[i]}"* ]]; then
            layer=${failure_layers[i]} reason=${failure_reasons[i]} permanent=${failure_permanent[i]}
            [[ $layer == key ]] && look_at_key
            return 0
        fi
    done
    layer=ssh reason=${last:-ssh was ended} permanent=0
}

# A refused key has causes on this side too; say the one that holds.
look_at_key() {
    local candidates=() key line readable='' locked=''
    if [[ -n ${SSH_AUTH_SOCK-} ]] && ssh-add -l >/dev/null 2>&1 </dev/null; then return 0; fi
    if [[ -n $identity ]]; then
        candidates=("$identity")
    else
        while read -r line key; do
            if [[ $line == identityfile ]]; then candidates+=("${key/#\~\//$HOME/}"); fi
        done <<<"${ssh_says:-$(ssh -G -- "${jump_destinations[0]}" 2>/dev/null </dev/null)}"
    fi
    for key in ${candidates[@]+"${candidates[@]}"}; do
        [[ -r $key ]] || continue
        readable=$key
        # ssh-keygen tells a key that needs a passphrase from one that is merely refused, and asks nobody.
        if ssh-keygen -y -P '' -f "$key" >/dev/null 2>&1 </dev/null; then return 0; fi
        locked=${locked:-$key}
    done
    if [[ -z $readable ]]; then
        reason="no key to log in with: ${identity:-${candidates[*]}} does not exist or cannot be read"
    else
        reason="the key $locked has a passphrase and no agent is there to unlock it; use a key without one, or an agent"
    fi
}

# shellcheck shell=bash
# Where a job's way out listens, what serves it there, and the environment that points to it.

# Set `address` for job $1: 127.64.0.0/10 with the low 22 bits of the job id, the same on every node of the job.
job_address() {
    if [[ $1 == shell ]]; then
        address=127.0.0.1
    else
        address=127.$((64 + ($1 >> 16 & 63))).$(($1 >> 8 & 255)).$(($1 & 255))
    fi
}

# Set `python` to one that can run the gate: the system's first, for one from a user's environment may be slow to load.
find_python() {
    local minor
    for python in /usr/bin/python3 /usr/libexec/platform-python python3; do
        # A system's own tells its version by another name of the same file, python3.N or platform-python3.N. To start it
        # only to ask would take as long as all the rest here.
        if [[ $python == /* && -x $python ]]; then
            for ((minor = 6; minor < 40; minor++)); do
                if [[ $python -ef ${python%3}3.$minor ]]; then return 0; fi
            done
        fi
        if "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1 </dev/null; then return 0; fi
    done
    return 1
}

# Write the environment for shells of this job, with URLs of scheme $1, served by user $2, into directory $3. Values are
# made of checked sets of characters.
write_env() {
    local step=${SLURM_STEP_ID-} octets listen
    IFS=. read -r -a octets <<<"$address"
    # /proc/net/tcp writes the address as the machine's own number: reversed where bytes are little-endian first.
    printf -v listen '%02X%02X%02X%02X:%04X' "${octets[3]}" "${octets[2]}" "${octets[1]}" "${octets[0]}" "$port"
    if [[ $step =~ ^[0-9]+$ ]]; then step=$job.$step; else step=''; fi
    no_proxy_list "$bypass_private" ${no_proxy_more[@]+"${no_proxy_more[@]}"}
    # In the order in which __hpcproxy_read takes them.
    printf '%s\n' "$key" "$step" "$2" "$listen" "$1://$address:$port" "$direct" >"$3/env.new"
    mv -f -- "$3/env.new" "$3/env"
}

# shellcheck shell=bash
# What a crash left behind. Part of tunnel.sh.

# Set `here` to what tells this node, and what can see its processes, from another with the same TMPDIR: a shared file
# system, a container.
name_host() {
    read -r here </proc/sys/kernel/hostname
    here+=" $(readlink /proc/self/ns/pid 2>/dev/null)"
}

# Remove the state directories of this user's ways out on this node whose holder is gone and could not remove its own: the
# node crashed, or everything was killed by force. Never one that somebody else made or could have changed, and never one
# whose holder lives, or is not known to have lived here: in doubt it stays.
sweep() {
    local directory here was
    name_host
    for directory in /tmp/hpcproxy-* "$state_base"/hpcproxy-*; do
        [[ ${directory##*/} =~ ^hpcproxy-(shell|[0-9]+)\.[0-9]+-[A-Za-z0-9]{8}$ ]] || continue
        # The owner first: what a link of somebody else's leads to is not looked at.
        [[ ! -L $directory && -d $directory && -O $directory ]] || continue
        [[ $(stat -c %a -- "$directory" 2>/dev/null) == 700 ]] || continue
        # `host` is written after `pid` (make_state).
        read -r was 2>/dev/null <"$directory/host" || continue
        if [[ $was != "$here" || ! -s $directory/pid ]] || holder_lives "$directory"; then continue; fi
        log info "removed what was left of ${directory##*/hpcproxy-}"
        rm -rf -- "$directory" 2>/dev/null || :
    done
}

# shellcheck shell=bash
# The job's other processes on this node, for where ssh itself listens; company.py and ending.py do the same for the gate.

# Set `others` to how many processes of this user belong to the job and are not ours: by their environment, or by their
# cgroup, for one that writes its title has none that could be read. A shell of somebody who logged in does not count.
# One that cannot be read counts as not there: a way out that stays too long keeps the node from the next job.
count_others() {
    local file line
    others=0
    while read -r file; do
        file=${file%/*}
        [[ -O $file ]] || continue
        read -r line 2>/dev/null <"$file/stat" || continue
        case ${line##*) } in Z* | X*) continue ;; esac
        if grep -q -z '^HPCPROXY_HOLDER=' "$file/environ" 2>/dev/null; then continue; fi
        if grep -q /step_extern "$file/cgroup" 2>/dev/null; then continue; fi
        others=$((others + 1))
    done < <(
        grep -l -z -x "SLURM_JOB_ID=$job" /proc/[0-9]*/environ 2>/dev/null || :
        grep -l -E "/job_$job(/|\$)" /proc/[0-9]*/cgroup 2>/dev/null || :
    )
}

# Set `linger` to the seconds that the way out may stay after SIGTERM.
linger_seconds() {
    local file key value
    linger=$linger_s
    [[ -z $linger ]] || return 0
    linger=28
    for file in "${SLURM_CONF-}" /etc/slurm/slurm.conf /run/slurm/conf/slurm.conf /etc/slurm-llnl/slurm.conf; do
        [[ -r $file ]] || continue
        while IFS='=' read -r key value; do
            if [[ ${key,,} =~ ^[[:space:]]*killwait[[:space:]]*$ && $value =~ ^[[:space:]]*([0-9]{1,5}) ]]; then
                linger=$((10#${BASH_REMATCH[1]} - 2))
            fi
        done <"$file"
        break
    done
    if ((linger < 0)); then linger=0; fi
}

# Wait until no other process of the job is here, at most `linger` seconds, then end the holder by SIGURG; return without
# that if the job goes on after all, for SIGTERM is also sent as a warning (preemption with a grace time).
outstay_nobody() {
    local others linger now end quiet
    trap - EXIT URG HUP
    trap '' TERM INT USR1 USR2
    linger_seconds
    exec {quiet}<> <(:)
    clock
    end=$((now + linger))
    while count_others && ((others)); do
        if clock && ((now >= end - (linger > 3 ? 2 : linger / 2))); then
            if ((linger)) && job_goes_on; then
                log info 'the job goes on, and so does its way out'
                return 0
            fi
            break
        fi
        # Not `sleep`, which would live on a while after us.
        read -r -t 0.2 -u "$quiet" || :
    done
    kill -URG "$$"
}

# True if Slurm says that the job is running. In doubt it is at its end.
job_goes_on() {
    local id status
    while read -r id status; do
        if [[ $id == "$job" ]]; then case $status in RUNNING | SUSPENDED) return 0 ;; esac fi
    done < <(timeout 2 squeue --noheader --jobs="$job" --format='%A %T' 2>/dev/null)
    return 1
}

# shellcheck shell=bash
# One ssh: its command line, its start, whether it serves, its end. The rest of tunnel.sh decides when.

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
# `^`, and one built without AES-GCM refuses its name. What else it says of the first jump host is kept for look_at_key.
cipher_words() {
    cipher=()
    if ssh_says=$(ssh -G -o "$cipher_option" -- "${jump_destinations[0]}" 2>/dev/null </dev/null); then
        cipher=(-o "$cipher_option")
    fi
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
    local now deadline
    clock
    deadline=$((now + connect_timeout_s + 5))
    until [[ -S $state/ctl ]]; do
        [[ -z $ending ]] && kill -0 "$ssh_pid" 2>/dev/null && clock && ((now < deadline)) || return 1
        sleep 0.05
    done
}

# True if a channel through the master comes back from the jump host's closed port within $1 seconds. Touches no service.
probe_master() {
    local text before
    read_text "$state/ssh.log"
    before=${#text}
    if timeout "$1" ssh -F /dev/null -S "$state/ctl" -W "$probe_target" -- probe >/dev/null 2>&1 </dev/null; then
        return 0
    fi
    read_text "$state/ssh.log"
    [[ ${text:before} == *'open failed: connect failed'* ]]
}

# ssh writes a line for each connection that fails: what is in its log is dropped when it is too much.
bound_log() {
    ((looks++ % 12 == 0)) || return 0
    if [[ -n $(find "$state/ssh.log" -size +256k 2>/dev/null) ]]; then : >"$state/ssh.log"; fi
}

# An ssh that no longer serves is ended, so that the next one comes. The network is ssh's own ServerAliveInterval's
# business; this is for one that was stopped, and for what may have happened while we were (a suspended job).
watch_ssh() {
    local now before stopped=0 looks=0 line quiet
    trap - EXIT URG HUP
    trap '' TERM INT USR1 USR2
    exec {quiet}<> <(:)
    now=$up_at
    while before=$now; do
        # Not `sleep`, which would live on a while after us.
        read -r -t "$alive_interval_s" -u "$quiet" || :
        clock
        bound_log
        if [[ -n $of_step ]] && read -r line 2>/dev/null <"/proc/$$/stat" && [[ ${line##*) } != ?" $PPID "* ]]; then
            log info 'what started this step was killed'
            kill -URG "$$" 2>/dev/null || :
        fi
        read -r line 2>/dev/null <"/proc/$ssh_pid/stat" || return 0
        case ${line##*) } in T* | t*) stopped=$((stopped + 1)) ;; *) stopped=0 ;; esac
        if ((stopped >= (alive_count > 1 ? alive_count - 1 : 1))); then
            log info 'ssh was stopped; ended'
        elif ((now - before > 2 * alive_interval_s + 1)); then
            log info "this node or job stood still for $((now - before - alive_interval_s)) s"
            if ((!stopped)) && probe_master "$alive_interval_s"; then continue; fi
        else
            continue
        fi
        kill -KILL "$ssh_pid" 2>/dev/null || :
        return 0
    done
}

# Start `command` with its stderr in ssh.log. Slurm sends SIGTERM to all processes of a job that ends, and users send
# other signals to them: ssh serves on. It goes with the holder, where the system knows how.
start_ssh() {
    launching=1
    (
        trap '' TERM INT QUIT USR1 USR2
        : >"$state/ssh.log"
        exec ${follow[@]+"${follow[@]}"} "${command[@]}" </dev/null >/dev/null 2>>"$state/ssh.log"
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

ending='' ssh_says='' told='' woken='' launching='' company_pid='' watch_pid='' ssh_pid='' pause_pid='' state='' said='' ready=0 tries='' up_at=0 changed_at=0 reconnects=-1 since=0 last_error='' current_jump=''

end() {
    ending=1 woken=1
    # By HUP: what Slurm sends to all processes of a job, ssh does not heed (start_ssh).
    if [[ -n $ssh_pid ]]; then kill -HUP "$ssh_pid" 2>/dev/null || :; fi
    if [[ -n $pause_pid ]]; then kill "$pause_pid" 2>/dev/null || :; fi
    if [[ -n $watch_pid ]]; then kill -KILL "$watch_pid" 2>/dev/null || :; fi
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

# One line to whoever started us (gone after a while, which is fine).
say() {
    printf '%s\n' "$*" 2>/dev/null || :
}

# One line in the log, and in the system's where an admin has rolled hpcproxy out; $1 is its level.
log() {
    local when level=$1
    shift
    case $log_level:$level in error:info) return 0 ;; esac
    printf -v when '%(%Y-%m-%dT%H:%M:%S%z)T' -1
    if [[ -n $state ]]; then printf '%s %s %s %s\n' "$when" "$job" "$node" "$*" 2>/dev/null >>"$state/log" || :; fi
    [[ -n $syslog ]] || return 0
    # By a process of its own, and not as our child: nothing may wait for it, and `$!` stays what it is.
    (timeout 1 logger -t "hpcproxy[$$]" -p "daemon.${level/error/err}" -- "job $job node $node: $*" &) </dev/null >/dev/null 2>&1
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
# change `$!` under who has just started something.
heed() {
    [[ -n $told && -z $ending ]] || return 0
    told=''
    if [[ -n $company_pid ]] && kill -0 "$company_pid" 2>/dev/null; then return 0; fi
    log info "told to end; stays while other processes of the job are here"
    outstay_nobody &
    company_pid=$!
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

# Hold a forward through jump host number $1 until it ends; true if it was ever up.
hold_through() {
    local jump=$1 up=1 now
    rm -f -- "$state/ctl"
    ssh_command "$jump" -N -M -S "$state/ctl" -D "$address:$port"
    start_ssh
    if await_master && probe_master "$connect_timeout_s"; then
        up=0
        came_up "$jump"
        launching=1
        watch_ssh "$jump" &
        watch_pid=$! launching=''
        heed
        await_ssh
        kill -KILL "$watch_pid" 2>/dev/null || :
        clock
        went_down
    fi
    end_ssh
    return "$up"
}

came_up() {
    clock
    up_at=$now
    current_jump=${jump_names[$1]}
    printf -v since '%(%s)T' -1
    reconnects=$((reconnects + 1)) said=''
    write_status
    if ((ready)); then
        log info "back through $current_jump after $((now - changed_at)) s${tries:+, $((tries + 1)) tries}"
    else
        ready=1
        say "ready $node $current_jump"
        log info "up through $current_jump after $((now - changed_at)) s${tries:+, $((tries + 1)) tries}"
    fi
    tries=''
}

went_down() {
    [[ -n $ending ]] && return 0
    read_reason "$state/ssh.log" "open failed: "
    last_error="$current_jump: $layer: $reason" current_jump=''
    changed_at=$now
    log error "down after $((now - up_at)) s: $last_error"
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
    tries=$((tries + 1))
    if [[ $said != *"$last_error"* ]]; then
        say "failed $node $layer ${jump_names[$1]}: $reason"
        log error "failed: $last_error"
        said+=$last_error
    fi
    write_status
}

give_up() {
    say "gave-up $node $1"
    log error "gave up: $1"
    exit 0
}

# Set `place` to this node's place among those of its job, from 0 to 65535, the same whoever works it out, and `order` to
# the jump hosts as it tries them: each node has another first one, and the rest to fall back on.
take_turn() {
    local number i
    place=0 order=("${!jump_names[@]}")
    [[ $job != shell ]] || return 0
    read -r number _ < <(printf '%s %s' "$job" "$node" | cksum)
    place=$((number >> 16))
    for i in "${!order[@]}"; do order[i]=$(((i + (number & 65535)) % ${#jump_names[@]})); done
}

# A pause of $1 milliseconds, or of a random part of it, at least $2 percent.
pause_ms() {
    local ms=$(($1 * ($2 + (100 - $2) * RANDOM / 32768) / 100)) seconds
    printf -v seconds '%d.%03d' "$((ms / 1000))" "$((ms % 1000))"
    pause "$seconds"
}

# Try the jump hosts in turn for as long as the job lives, with growing pauses between rounds; one that somebody has to
# mend first only rarely.
hold() {
    local wait_s=1 flap_ms=125 jump hopeless up busy now place order not_before=()
    take_turn
    clock
    changed_at=$now
    if ((spread_ms)); then
        log info "its turn comes in $((spread_ms * place / 65536)) ms: many nodes begin at this moment"
        pause_ms "$((spread_ms * place / 65536))" 100
    fi
    while [[ -z $ending ]]; do
        hopeless=0 up=0 busy=0
        for jump in "${order[@]}"; do
            clock
            if ((${not_before[jump]-0} > now)); then
                hopeless=$((hopeless + 1))
                continue
            fi
            if hold_through "$jump"; then
                clock
                up=1 wait_s=1
                # The others first: who was cut off here would wait here for its answer.
                while [[ ${order[${#order[@]} - 1]} != "$jump" ]]; do order=("${order[@]:1}" "${order[0]}"); done
                break
            fi
            [[ -z $ending ]] || return 0
            failed "$jump"
            hopeless=$((hopeless + permanent))
            if ((permanent)) && [[ $layer != port ]]; then not_before[jump]=$((now + (retry_max_s > 120 ? retry_max_s : 120))); fi
            if [[ $layer == busy ]]; then busy=1; fi
            if ((!ready)) && [[ $layer == port ]]; then give_up "$layer $reason"; fi
        done
        if ((!ready && hopeless == ${#jump_names[@]})); then give_up "$layer ${jump_names[jump]}: $reason"; fi
        [[ -n $ending ]] && return 0
        if ((up)); then
            # Almost at once, unless it never lives for long; with jitter, for all nodes lose a jump host together.
            flap_ms=$((now - up_at >= 10 ? 250 : flap_ms * 2 < retry_max_s * 1000 ? flap_ms * 2 : retry_max_s * 1000))
            pause_ms "$flap_ms" 50
        elif ((busy)); then
            # It has too many logins at once, or shuts our address out for a while: patience, widely spread.
            if ((wait_s < 4)); then wait_s=4; fi
            if ((wait_s * 1000 < spread_ms)); then wait_s=$((spread_ms < 30000 ? spread_ms / 1000 : 30)); fi
            pause_ms "$((wait_s * 1000))" 10
        else
            pause_ms "$((wait_s * 1000))" 50
        fi
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
    moment 0.02
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
    local here
    find_state_base
    state=$(mktemp -d -- "$state_base/hpcproxy-$key-XXXXXXXX") || give_up "state no directory can be made in $state_base"
    start_time "$$"
    name_host
    if ! { printf '%d %s\n' "$$" "$started" >"$state/pid" && printf '%s\n' "$here" >"$state/host" &&
        write_env "$1" "$UID" "$state"; }; then
        give_up "state nothing can be written in $state_base"
    fi
    sweep
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
    if [[ $job != shell ]]; then words+=(--job "$job" --nodes "$node_count"); fi
    if [[ -n $of_step ]]; then words+=(--parent "$PPID"); fi
    # A signal that comes before the gate has its handlers must not end it with its state left behind. Where `env` cannot
    # hold them back (before coreutils 8.31) the gate does so as soon as it runs.
    if env --block-signal='TERM,URG,INT,USR1' true 2>/dev/null; then
        held_back=(env --block-signal='TERM,URG,INT,USR1')
    fi
    trap '' USR1
    [[ -z $ending ]] || return 0
    exec ${held_back[@]+"${held_back[@]}"} "$python" -I -S "$home/agent.pyz" "${words[@]}"
}

begin_hold() {
    local mode=gate where='this node' of_step=''
    job=$1 key=$1.$2
    [[ $1 == shell || $1 =~ ^[0-9]{1,10}$ ]] && [[ $2 =~ ^[0-9]{1,10}$ ]] || exit 2
    node=${SLURMD_NODENAME:-${HOSTNAME%%.*}}
    [[ $node =~ ^[A-Za-z0-9._-]+$ ]] || node=unnamed
    node_count=${SLURM_JOB_NUM_NODES:-${SLURM_NNODES:-1}}
    [[ $node_count =~ ^[1-9][0-9]{0,5}$ ]] || node_count=1
    spread "$node_count" "${#jump_names[@]}"
    # The Prolog's holder outlives it; a step's must not outlive its slurmstepd.
    if [[ $job != shell && -z $4 ]]; then of_step=1; fi
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
        log info "no python3 of 3.6 or later for the gate on $where; ssh itself listens"
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

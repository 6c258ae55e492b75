# shellcheck shell=bash
# The way to the gate: which agent.pyz becomes of this process.

# Set `addresses` to what the jump hosts' names mean here, a comma between two: in service mode they are closed
# (node/state/closed.py).
find_jump_addresses() {
    local address
    addresses=''
    while read -r address _; do
        if [[ $address =~ ^[0-9A-Fa-f.:]+$ && ,$addresses, != *",$address,"* ]]; then addresses+=${addresses:+,}$address; fi
    done < <(exec timeout -s KILL 2 getent ahosts -- "${jump_destinations[@]##*@}" 2>/dev/null)
}

# Set `gate_words` to the command line of the gate, for user $1.
prepare_gate() {
    local addresses
    gate_words=(
        ${held_back[@]+"${held_back[@]}"} "$python" -I -S "$home/agent.pyz" hold --config "$home/agent.json"
        --address "$address" --port "$port" --state "$state" --node "$node" --uid "$1"
    )
    if ((${#user_config[@]})); then gate_words+=(--ssh-config "${user_config[1]}"); fi
    if ((${#cipher[@]})); then gate_words+=(--ssh-option "${cipher[1]}"); fi
    if ((${#log_verbose[@]})); then gate_words+=(--log-verbose yes); fi
    reason=''
    if [[ $via == ssh ]]; then look_at_key || :; fi
    if [[ -n $reason ]]; then gate_words+=(--key-note "$reason"); fi
    if [[ $job != shell ]]; then gate_words+=(--job "$job" --nodes "$node_count"); fi
    if [[ -n $of_step ]]; then gate_words+=(--parent "$PPID"); fi
    if leads; then gate_words+=(--leads yes); fi
    if [[ $1 != "$UID" && $via == ssh ]]; then
        find_jump_addresses
        if [[ -n $addresses ]]; then gate_words+=(--jump-addresses "$addresses"); fi
    fi
    # The Prolog's keeper has taken the port and hands it on (node/proxy/port.py).
    if [[ -n ${HPCPROXY_LISTENER-} ]]; then gate_words+=(--listener "$HPCPROXY_LISTENER"); fi
}

# Become the gate: same pid, same state directory, which it removes at its end. A SIGURG that waits would be dropped when
# the shell puts its traps back, for nothing is what it does by default; who sends one sends it again.
hand_over() {
    trap '' USR1
    if [[ -n $ending ]] || end_waits; then return 0; fi
    exec "${gate_words[@]}"
}

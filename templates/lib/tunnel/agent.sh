# shellcheck shell=bash
# The way to the agent: which agent.pyz becomes of this process.

# Set `addresses` to what the jump hosts' names mean here, a comma between two: in service mode they are closed
# (node/state/closed.py).
find_jump_addresses() {
    local address
    addresses=''
    while read -r address _; do
        if [[ $address =~ ^[0-9A-Fa-f.:]+$ && ,$addresses, != *",$address,"* ]]; then addresses+=${addresses:+,}$address; fi
    done < <(exec timeout -s KILL 2 getent ahosts -- "${jump_destinations[@]##*@}" 2>/dev/null)
}

# Set `agent_words` to the command line of the agent, for user $1.
prepare_agent() {
    local addresses
    agent_words=(
        ${held_back[@]+"${held_back[@]}"} "$python" -I -S "$home/agent.pyz" hold --config "$home/agent.json"
        --address "$address" --port "$port" --state "$state" --node "$node" --uid "$1"
    )
    if ((${#user_config[@]})); then agent_words+=(--ssh-config "${user_config[1]}"); fi
    if name_ssh; then agent_words+=(--ssh-name ./hop); fi
    if ((${#cipher[@]})); then agent_words+=(--ssh-option "${cipher[1]}"); fi
    if ((${#log_verbose[@]})); then agent_words+=(--log-verbose yes); fi
    reason=''
    if [[ -n $uses_ssh ]]; then look_at_key || :; fi
    if [[ -n $reason ]]; then agent_words+=(--key-note "$reason"); fi
    if [[ $job != shell ]]; then agent_words+=(--job "$job" --nodes "$node_count"); fi
    if [[ -n $of_step ]]; then agent_words+=(--parent "$PPID"); fi
    if leads; then agent_words+=(--leads yes); fi
    if [[ $1 != "$UID" && -n $uses_ssh ]]; then
        find_jump_addresses
        if [[ -n $addresses ]]; then agent_words+=(--jump-addresses "$addresses"); fi
    fi
    # The Prolog's supervisor has taken the port and hands it on (node/proxy/port.py).
    if [[ -n ${HPCPROXY_LISTENER-} ]]; then agent_words+=(--listener "$HPCPROXY_LISTENER"); fi
}

# Become the agent: same pid, same state directory, which it removes at its end. A SIGURG that waits would be dropped
# when the shell puts its traps back, for nothing is what it does by default; who sends one sends it again.
hand_over() {
    trap '' USR1
    if [[ -n $ending ]] || end_waits; then return 0; fi
    exec "${agent_words[@]}"
}

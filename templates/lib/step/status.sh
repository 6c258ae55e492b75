# shellcheck shell=bash
# What is known of this node's tunnel, for those who ask.

# The agent's status may be a second old. SIGUSR2 asks for a new one, which is there when the name means another file;
# the same as JSON is there before that.
refresh_status() {
    local pid tries
    local -A values
    read_fields "$state/status" && [[ ${values[mode]-} == agent ]] || return 1
    rm -f -- "$state/status.old"
    ln -- "$state/status" "$state/status.old" 2>/dev/null || return 1
    read -r pid _ <"$state/pid" && kill -USR2 "$pid" || return 1
    for ((tries = 0; tries < 50; tries++)); do
        [[ ! $state/status -ef $state/status.old ]] && break
        sleep 0.02
    done
    rm -f -- "$state/status.old"
}

# What is known of the tunnel in `state`, as status.json has it. A service account's is not ours to read: there it is
# what the supervisor has said.
tell_status() {
    local text line jump='' error='' up=false
    read_text "$state/status.json"
    text=${text%%$'\n'*}
    if [[ -z $text ]]; then
        read_text "$run_base/holders/${state##*/}.said"
        while read -r line; do
            case $line in
                ready\ *) jump=${line#ready * } up=true ;;
                failed\ * | gave-up\ *) error=${line#* * } ;;
            esac
        done <<<"$text"
        text="{\"ready\": $up"
        if [[ -n $jump ]]; then json_string "$jump" && text+=", \"jump\": $quoted"; fi
        if [[ -n $error ]]; then json_string "$error" && text+=", \"last_error\": $quoted"; fi
        text+='}'
    fi
    printf '%s' "$text"
}

status() {
    local node=${SLURMD_NODENAME:-${HOSTNAME%%.*}} directory line='' key pid told
    local -A values
    # Of whichever run of the job: a step from outside is not told its number.
    for directory in "$run_base/$job."* "$state_home/$job."* "/tmp/hpcproxy-$EUID/$job."*; do
        key=${directory##*/}
        key=${key%%-*}
        if ! { find_state "$key" && read -r pid _ <"$state/pid"; }; then continue; fi
        told='{"ready": false, "last_error": "another version of hpcproxy has started it"}'
        if read_fields "$state/env"; then
            refresh_status || :
            told=$(tell_status)
        fi
        printf -v line '%s\t%s\t%s\t%s\t%s' "$key" "$pid" "$state" "${values[url]-}" "$told"
    done 2>/dev/null
    printf 'status\t%s\t%s\n' "$node" "$line"
}

# One line of what went through on this node, where the agent has counted it.
sum_up() {
    local -A values
    local word
    refresh_status && read_fields "$state/status" || return 0
    for word in requests bytes_up bytes_down reconnects; do [[ ${values[$word]-} =~ ^[0-9]+$ ]] || return 0; done
    printf 'hpcproxy: %d requests from this node, %d KiB up, %d KiB down, %d reconnects\n' \
        "${values[requests]}" "$((10#${values[bytes_up]} / 1024))" "$((10#${values[bytes_down]} / 1024))" \
        "${values[reconnects]}" >&2
}

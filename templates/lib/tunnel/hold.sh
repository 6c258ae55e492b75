# shellcheck shell=bash
# Where ssh itself listens: the loop that keeps one up, as the agent does where there is one (tunnel.py and
# candidate.py in node/upstream).
#
# What it knows of its forward is in `forward`, an associative array of hold's: ready, 1 once one was up; jump, through
# which host it is, if it is; since when, in seconds since the epoch; up_at, changed_at, when that was by our clock;
# reconnects; tries, since it went down; last_error; said, the reasons told since it was up.

# Write status.json, which `hpcproxy status` reads, and `status`, the same a line each, for shells. By rename, so that
# no reader sees half of it; `status` is the last.
write_status() {
    local jump=null error=null up=false quoted error_line=${forward[last_error]//[[:cntrl:]]/ } count
    count=$((forward[reconnects] > 0 ? forward[reconnects] : 0))
    if [[ -n ${forward[jump]} ]]; then json_string "${forward[jump]}" && jump=$quoted up=true; fi
    if [[ -n ${forward[last_error]} ]]; then json_string "${forward[last_error]}" && error=$quoted; fi
    # A full disk costs the status, never the tunnel.
    if printf '{"version": 1, "node": "%s", "address": "%s", "port": %d, "mode": "ssh", "ready": %s, "since": %d, "jump": %s, "reconnects": %d, "last_error": %s, "pid": %d}\n' \
        "$node" "$address" "$port" "$up" "${forward[since]}" "$jump" "$count" "$error" "$$" 2>/dev/null >status.new; then
        mv -f -- status.new status.json 2>/dev/null || :
    fi
    if printf '%s\n' "version=$state_version" mode=ssh "ready=$up" "since=${forward[since]}" \
        "jump=${forward[jump]}" "reconnects=$count" "last_error=$error_line" 2>/dev/null >status.new; then
        mv -f -- status.new status 2>/dev/null || :
    fi
}

# Hold a forward through jump host number $1 until it ends; true if it was ever up.
hold_through() {
    local jump=$1 up=1 now
    restore_state "$scheme"
    rm -f -- ctl || :
    # By a relative name: ssh expands what stands in one (`%h`, `${HOME}`), and a long one is too long for a socket.
    ssh_command "$jump" -N -M -S ctl
    log debug "connecting through ${jump_names[jump]}"
    start_ssh
    if await_master && take_port && probe_master "$connect_timeout_s"; then
        up=0
        came_up "$jump"
        launching=1
        watch_ssh "${forward[up_at]}" &
        watch_pid=$! launching=''
        heed
        await_ssh
        kill -KILL "$watch_pid" 2>/dev/null || :
        clock
        went_down
    fi
    end_ssh
    log_ssh
    return "$up"
}

# What ssh said, in the log of those who want to see all of it; the beginning, if it was very much.
log_ssh() {
    local line count=0
    [[ $log_level == debug ]] || return 0
    while ((count++ < 200)) && read -r line; do log debug "ssh: ${line//[![:print:]]/?}"; done 2>/dev/null <ssh.log || :
}

# Jump host number $1 serves.
came_up() {
    local now since how
    clock
    how="through ${jump_names[$1]} after $((now - forward[changed_at])) s"
    if [[ -n ${forward[tries]} ]]; then how+=", $((forward[tries] + 1)) tries"; fi
    forward[up_at]=$now forward[jump]=${jump_names[$1]} forward[said]='' forward[tries]=''
    forward[reconnects]=$((forward[reconnects] + 1))
    printf -v since '%(%s)T' -1
    forward[since]=$since
    write_status
    if ((forward[ready])); then
        log info "back $how"
    else
        forward[ready]=1
        say "ready $node ${forward[jump]}"
        log info "up $how"
    fi
}

# It does no longer, at `now`.
went_down() {
    [[ -n $ending ]] && return 0
    read_reason ssh.log "open failed: " ssh.talk
    forward[last_error]="${forward[jump]}: $layer: $reason" forward[jump]='' forward[changed_at]=$now
    log error "down after $((now - forward[up_at])) s: ${forward[last_error]}"
    write_status
}

# Say why jump host number $1 did not serve, once for each new reason.
failed() {
    local told
    if [[ -n $identity && ! -r $identity ]]; then
        layer=key reason="the key $identity does not exist or cannot be read" permanent=1
    else
        read_reason ssh.log "open failed: connect failed" ssh.talk
        if [[ $layer == port ]]; then name_taker; fi
    fi
    # Who is shut out after a refusal is shut out for that: it is what there is to tell (node/upstream/candidate.py).
    case $layer in
        busy) ;;
        key | ssh | login | host-key | forwarding) refusals_of[$1]="$layer ${jump_names[$1]}: $reason" ;;
        *) unset "refusals_of[$1]" ;;
    esac
    told="$layer ${jump_names[$1]}: $reason"
    if [[ $layer == busy ]]; then told=${refusals_of[$1]-$told}; fi
    forward[last_error]="${jump_names[$1]}: ${told%% *}: ${told#*: }"
    forward[tries]=$((forward[tries] + 1))
    if [[ ${forward[said]} != *"${forward[last_error]}"* ]]; then
        say "failed $node $told"
        log error "failed: ${forward[last_error]}"
        forward[said]+=${forward[last_error]}
    fi
    write_status
}

# Set `place` to this node's place among those of its job, from 0 to 65535, the same whoever works it out, and `order`
# to the jump hosts as it tries them: each node has another first one, and the rest to fall back on.
take_place() {
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

# Wait for this node's turn, if many begin at this moment.
await_turn() {
    local ms=$((spread_ms * place / 65536))
    if ((!spread_ms)) || leads; then return 0; fi
    log info "its first login comes in $ms ms: many nodes begin at this moment"
    pause_ms "$ms" 100
}

# Jump host number $1 is not tried again soon: somebody has to mend it first, and each refusal costs the address some of
# sshd's patience (node/upstream/candidate.py reckons the same).
put_off() {
    local rarely_s=$((15 * node_count > 120 ? 15 * node_count : 120)) rarest_s
    rarely_s=$((rarely_s > retry_max_s ? rarely_s : retry_max_s))
    rarest_s=$((rarely_s > 3600 ? rarely_s : 3600)) rarely_s=$((rarely_s << refusals))
    not_before[$1]=$((now + (rarely_s < rarest_s ? rarely_s : rarest_s)))
    refusals=$((refusals < 5 ? refusals + 1 : 5))
}

# Try the jump hosts in `order`, until one has served: `up` is 1 then. Else `hopeless` is the number of those that
# somebody has to mend first, and `busy` is 1 if one has too much to do. `jump` is the last one.
try_all() {
    hopeless=0 up=0 busy=0
    for jump in "${order[@]}"; do
        clock
        if ((${not_before[jump]-0} > now)); then
            hopeless=$((hopeless + 1))
            continue
        fi
        if hold_through "$jump"; then
            clock
            up=1 wait_s=1 refusals=0 refusals_of=()
            # The others first: who was cut off here would wait here for its answer.
            while [[ ${order[${#order[@]} - 1]} != "$jump" ]]; do order=("${order[@]:1}" "${order[0]}"); done
            return 0
        fi
        [[ -z $ending ]] || return 0
        failed "$jump"
        hopeless=$((hopeless + permanent))
        if ((permanent)) && [[ $layer != port ]]; then put_off "$jump"; fi
        if [[ $layer == busy ]]; then busy=1; fi
        if ((!forward[ready])) && [[ $layer == port ]]; then give_up "$layer $reason"; fi
    done
}

# The pause before the next round.
pause_between() {
    if ((up)); then
        # Almost at once, unless it never lives for long; with jitter, for all nodes lose a jump host together.
        flap_ms=$((now - forward[up_at] >= 10 ? 250 : flap_ms * 2 < retry_max_s * 1000 ? flap_ms * 2 : retry_max_s * 1000))
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
}

# Try the jump hosts in turn for as long as the job lives, with growing pauses between rounds; one that somebody has to
# mend first only rarely.
hold() {
    local wait_s=1 flap_ms=125 jump hopeless up busy now place order not_before=() refusals=0 refusals_of=()
    local -A forward=(
        [ready]=0 [jump]='' [since]=0 [up_at]=0 [changed_at]=0 [reconnects]=-1 [tries]='' [last_error]='' [said]=''
    )
    take_place
    clock
    forward[changed_at]=$now
    await_turn
    while [[ -z $ending ]]; do
        try_all
        [[ -z $ending ]] || return 0
        if ((!forward[ready] && hopeless == ${#jump_names[@]})); then give_up "$layer ${jump_names[jump]}: $reason"; fi
        pause_between
    done
}

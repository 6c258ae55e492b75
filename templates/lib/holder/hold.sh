# shellcheck shell=bash
# Where ssh itself listens: the loop that keeps one up, as the agent does where there is the gate (tunnel.py and candidate.py in
# node/upstream).

# Write status.json, which `hpcproxy status` reads, and `status`, the same a line each, for shells. By rename, so that no reader
# sees half of it; `status` is the last.
write_status() {
    local jump=null error=null up=false error_line=${last_error//[[:cntrl:]]/ }
    if [[ -n $current_jump ]]; then json_string "$current_jump" && jump=$quoted up=true; fi
    if [[ -n $last_error ]]; then json_string "$last_error" && error=$quoted; fi
    # A full disk costs the status, never the way out.
    if printf '{"version": 1, "node": "%s", "address": "%s", "port": %d, "mode": "ssh", "ready": %s, "since": %d, "jump": %s, "reconnects": %d, "last_error": %s, "pid": %d}\n' \
        "$node" "$address" "$port" "$up" "$since" "$jump" \
        "$((reconnects > 0 ? reconnects : 0))" "$error" "$$" 2>/dev/null >status.new; then
        mv -f -- status.new status.json 2>/dev/null || :
    fi
    if printf '%s\n' "version=$state_version" mode=ssh "ready=$up" "since=$since" "jump=$current_jump" \
        "reconnects=$((reconnects > 0 ? reconnects : 0))" "last_error=$error_line" 2>/dev/null >status.new; then
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
        watch_ssh "$jump" &
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
    local line lines=0
    [[ $log_level == debug ]] || return 0
    while ((lines++ < 200)) && read -r line; do log debug "ssh: ${line//[![:print:]]/?}"; done 2>/dev/null <ssh.log || :
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
    read_reason ssh.log "open failed: " ssh.talk
    last_error="$current_jump: $layer: $reason" current_jump=''
    changed_at=$now
    log error "down after $((now - up_at)) s: $last_error"
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
    last_error="${jump_names[$1]}: ${told%% *}: ${told#*: }"
    tries=$((tries + 1))
    if [[ $said != *"$last_error"* ]]; then
        say "failed $node $told"
        log error "failed: $last_error"
        said+=$last_error
    fi
    write_status
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
    local wait_s=1 flap_ms=125 jump hopeless up busy now place order not_before=() refusals=0 refusals_of=() rarely_s rarest_s
    take_turn
    clock
    changed_at=$now
    if ((spread_ms)) && ! leads; then
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
                up=1 wait_s=1 refusals=0 refusals_of=()
                # The others first: who was cut off here would wait here for its answer.
                while [[ ${order[${#order[@]} - 1]} != "$jump" ]]; do order=("${order[@]:1}" "${order[0]}"); done
                break
            fi
            [[ -z $ending ]] || return 0
            failed "$jump"
            hopeless=$((hopeless + permanent))
            if ((permanent)) && [[ $layer != port ]]; then
                # Each costs the address some of sshd's patience (node/upstream/candidate.py reckons the same).
                rarely_s=$((15 * node_count > 120 ? 15 * node_count : 120))
                rarely_s=$((rarely_s > retry_max_s ? rarely_s : retry_max_s))
                rarest_s=$((rarely_s > 3600 ? rarely_s : 3600)) rarely_s=$((rarely_s << refusals))
                not_before[jump]=$((now + (rarely_s < rarest_s ? rarely_s : rarest_s)))
                refusals=$((refusals < 5 ? refusals + 1 : 5))
            fi
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

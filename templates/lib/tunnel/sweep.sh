# shellcheck shell=bash
# What a crash left behind. Part of tunnel.sh.

# Set `here` to what tells this node, and what can see its processes, from another with the same TMPDIR: a shared file
# system, a container.
name_host() {
    local space='' key value inode=''
    read -r here </proc/sys/kernel/hostname
    # Without a process for it where the kernel tells (5.14). One that a signal ends says nothing: what is left here
    # then stays.
    if { exec {space}</proc/self/ns/pid; } 2>/dev/null; then
        while read -r key value; do
            if [[ $key == ino: ]]; then inode=$value; fi
        done 2>/dev/null <"/proc/self/fdinfo/$space" || :
        exec {space}<&-
    fi
    if [[ -n $inode ]]; then here+=" pid:[$inode]"; else here+=" $(readlink /proc/self/ns/pid 2>/dev/null || :)"; fi
}

# Remove the state directories of this user's other tunnels on this node whose supervisor is gone and could not remove
# its own: the node crashed, or everything was killed by force. Never one whose supervisor lives, or is not known to
# have lived `here`: in doubt it stays. Only the user's own directory is looked through, a bounded part of it, and what
# is to be removed is left to a process for which nobody waits.
sweep() {
    local directory was found=("$state_home"/*) dead=()
    if [[ $state_home != "/tmp/hpcproxy-$EUID" && -O /tmp/hpcproxy-$EUID && ! -L /tmp/hpcproxy-$EUID ]]; then
        found+=("/tmp/hpcproxy-$EUID"/*)
    fi
    for directory in "${found[@]:0:64}"; do
        [[ $directory != "$state" && ${directory##*/} =~ ^(shell|[0-9]+)\.[0-9]+-[A-Za-z0-9]{8}$ ]] || continue
        [[ ! -L $directory && -d $directory && -O $directory ]] || continue
        # `host` is written after `pid` (make_state).
        read -r was 2>/dev/null <"$directory/host" || continue
        if [[ $was != "$here" || ! -s $directory/pid ]] || supervisor_lives "$directory"; then continue; fi
        log info "removed what was left of ${directory##*/}"
        dead+=("$directory")
    done
    ((${#dead[@]})) || return 0
    (exec timeout -s KILL 10 rm -rf -- "${dead[@]}" &) </dev/null >/dev/null 2>&1
}

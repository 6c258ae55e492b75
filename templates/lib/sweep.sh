# shellcheck shell=bash
# What a crash left behind. Part of tunnel.sh.

# Set `here` to what tells this node, and what can see its processes, from another with the same TMPDIR: a shared file
# system, a container.
name_host() {
    local space='' key value inode=''
    read -r here </proc/sys/kernel/hostname
    # Without a process for it where the kernel tells (5.14). One that a signal ends says nothing: what is left here then stays.
    if { exec {space}</proc/self/ns/pid; } 2>/dev/null; then
        while read -r key value; do
            if [[ $key == ino: ]]; then inode=$value; fi
        done 2>/dev/null <"/proc/self/fdinfo/$space" || :
        exec {space}<&-
    fi
    if [[ -n $inode ]]; then here+=" pid:[$inode]"; else here+=" $(readlink /proc/self/ns/pid 2>/dev/null || :)"; fi
}

# Remove the state directories of this user's other ways out on this node whose holder is gone and could not remove its
# own: the node crashed, or everything was killed by force. Never one that somebody else made or could have changed, and
# never one whose holder lives, or is not known to have lived `here`: in doubt it stays.
sweep() {
    local directory was found=(/tmp/hpcproxy-*)
    if [[ $state_base != /tmp ]]; then found+=("$state_base"/hpcproxy-*); fi
    for directory in "${found[@]}"; do
        [[ $directory != "$state" && ${directory##*/} =~ ^hpcproxy-(shell|[0-9]+)\.[0-9]+-[A-Za-z0-9]{8}$ ]] || continue
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

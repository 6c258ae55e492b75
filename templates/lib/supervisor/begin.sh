# shellcheck shell=bash
# What root makes on a node for a tunnel that begins; how each of it ends is told in record.sh, group.sh, scrap.sh,
# nft.sh.

state_bytes=16m state_names=1024
group_processes=512 group_bytes=1073741824

# Write the record of $1 anew from `supervisor`, `tunnel`, `firewall` and `group`; whoever reads it meets the old one or
# the new one.
write_record() {
    {
        printf 'keeper %s\n' "${supervisor[*]}"
        if ((${#tunnel[@]})); then printf 'way %s\n' "${tunnel[*]}"; fi
        if [[ -n $group ]]; then printf 'group %s\n' "$group"; fi
        if ((${#firewall[@]})); then printf 'wall %s\n' "${firewall[*]}"; fi
    } >"$run_base/holders/$1.new"
    mv -f -- "$run_base/holders/$1.new" "$run_base/holders/$1"
}

# Make the directory $1, root's and 0700 until all that root puts there is in it.
make_small() {
    mkdir -m 0700 -- "$1"
    timeout -s KILL 2 mount -n -t tmpfs -o "nosuid,nodev,noexec,mode=0700,size=$state_bytes,nr_inodes=$state_names" \
        hpcproxy "$1" 2>/dev/null </dev/null || :
}

# Move this process into a cgroup of its own for $1 and set `group` to it, or to nothing where none can be had.
enter_group() {
    local where hierarchies
    find_hierarchies
    for where in ${hierarchies[@]+"${hierarchies[@]}"}; do
        mkdir -p -- "$where/hpcproxy" || continue
        # What runs here is outside of the job's limits, so it has its own, where this kernel has them here.
        printf '+pids\n' >"$where/hpcproxy/cgroup.subtree_control" || :
        printf '+memory\n' >"$where/hpcproxy/cgroup.subtree_control" || :
        group=$(mktemp -d -- "$where/hpcproxy/$1-XXXXXXXX") || continue
        [[ ! -e $group/pids.max ]] || printf '%s\n' "$group_processes" >"$group/pids.max" || :
        [[ ! -e $group/memory.max ]] || printf '%s\n' "$group_bytes" >"$group/memory.max" || :
        if [[ -e $group/cgroup.freeze || -e $group/freezer.state ]] && mkdir -- "$group/way" &&
            printf '%d\n' "$$" >"$group/cgroup.procs"; then
            sweep_groups "$where/hpcproxy" 64
            return 0
        fi
        rmdir -- "$group/way" "$group" || :
    done 2>/dev/null
    group=''
}

# Go back to where a cgroup of ours hangs, so that `group` can be ended from here.
leave_group() {
    [[ -z $group ]] || printf '%d\n' "$$" >"${group%/hpcproxy/*}/cgroup.procs"
} 2>/dev/null

# Add what `firewall` (ADDRESS PORT UID) says; the table is made by whoever finds none. True if it stands.
raise_firewall() {
    local elements rule
    hash nft 2>/dev/null || return 1
    # nft takes a number for a name first, in whatever way it is written, and so does id: where a user is named so, no
    # firewall.
    [[ $(timeout -s KILL 2 id -u -- "${firewall[2]}" 2>/dev/null) == "${firewall[2]}" ]] || return 1
    elements="add element inet hpcproxy passes { ${firewall[0]} . ${firewall[1]} . ${firewall[2]} }"
    elements+="; add element inet hpcproxy held { ${firewall[0]} . ${firewall[1]} }"
    if nft_bounded 2 "$elements"; then return 0; fi
    rule='tcp flags & (syn | ack) == syn ip daddr . tcp dport @held meta skuid != 0'
    rule+=' ip daddr . tcp dport . meta skuid != @passes reject with tcp reset'
    # `out`, what the chain was called, is a word of nft's own before 0.9.9 or so (Debian 11, EL 8).
    # As one transaction, and not where it is there by now: a rule would be there twice.
    nft_bounded 2 "create table inet hpcproxy
        add set inet hpcproxy held { type ipv4_addr . inet_service; }
        add set inet hpcproxy passes { type ipv4_addr . inet_service . uid; }
        add chain inet hpcproxy connecting { type filter hook output priority 0; policy accept; }
        add rule inet hpcproxy connecting $rule" || :
    nft_bounded 2 "$elements"
}

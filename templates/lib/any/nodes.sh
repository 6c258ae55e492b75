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
    for name in ${!SLURM_JOB_NODELIST_HET_GROUP_*} ${!SLURM_JOB_NODELIST_PACK_GROUP_*}; do
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

# Add to `entries` what is not among them yet.
add_entries() {
    local entry
    for entry; do
        if [[ $seen != *",$entry,"* ]]; then entries+=("$entry") && seen+=$entry,; fi
    done
}

# Add to `own` every address of this node: those that the kernel calls its own, but not link-local ones, which need
# their interface's name beside them. Bounded, for a node may have one for each container.
own_addresses() {
    local word='' address='' line table=() scope _
    # At once: for each `read` the kernel begins at the table's first line, and each route has three.
    mapfile -t table 2>/dev/null </proc/net/fib_trie || :
    for line in ${table[@]+"${table[@]}"}; do
        ((${#own[@]} < 64)) || break
        case $line in
            *'|-- '*) address=${line##* } ;;
            *' /32 host LOCAL') if [[ " ${own[*]-} " != *" $address "* ]]; then own+=("$address"); fi ;;
        esac
    done
    while read -r word _ _ scope _ && ((${#own[@]} < 64)); do
        if [[ $scope == 00 ]]; then spell_ipv6 "$word" && own+=("$address"); fi
    done 2>/dev/null </proc/net/if_inet6
    return 0
}

# Set `address` to the 32 hexadecimal digits $1 as RFC 5952 writes an IPv6 address.
spell_ipv6() {
    local group run=':0:0:0:0:0:0:0:0'
    address=''
    for group in 0 4 8 12 16 20 24 28; do
        printf -v group ':%x' "0x${1:group:4}"
        address+=$group
    done
    while [[ $run == :0:0* ]]; do
        if [[ $address: == *$run:* ]]; then
            address=${address/$run/::}
            address=${address/:::/::}
            break
        fi
        run=${run%:0}
    done
    if [[ $address == :[^:]* ]]; then address=${address#:}; fi
    # A run at the beginning or in the middle has the next group's colon behind it.
    address=${address/:::/::}
}

# Add to `own` this node's names: its own, and those that /etc/hosts has for loopback or one of its addresses. Its first
# lines only: some list a whole cluster.
own_names() {
    local address names name lines=0
    own+=("${HOSTNAME-}" "${HOSTNAME%%.*}" "${HOSTNAME%%.*}.")
    while ((lines++ < 64)) && read -r address names; do
        if [[ $address != 127.* && $address != ::1 && " ${own[*]} " != *" $address "* ]]; then continue; fi
        for name in ${names%%#*}; do own+=("$name"); done
    done 2>/dev/null </etc/hosts
    return 0
}

# Set `direct` to the no_proxy list: what is reached without the tunnel. `$1` 1 adds the private networks.
# Names and addresses both, because half of the clients do not know networks and the other half resolve first. 127.0.1.1
# is Debian's for a host's own name.
no_proxy_list() {
    local bypass_private=$1 entries=() seen=, own=() node address _
    local first=(localhost 127.0.0.1 ::1 0.0.0.0 127.0.1.1 127.0.0.0/8 localhost.)
    shift
    job_nodes
    cluster_domain
    own_addresses
    own_names
    add_entries "${first[@]}"
    for node in ${nodes[@]+"${nodes[@]}"}; do
        add_entries "$node"
        if [[ -n $domain && $node != *.* ]]; then add_entries "$node.$domain"; fi
    done
    if ((${#nodes[@]})); then
        # Bounded: a resolver that does not answer must not hold the job up. By KILL, for TERM may be held back here.
        while read -r address _; do
            if [[ $address =~ ^[0-9.]+$ && $address != 127.* ]]; then add_entries "$address"; fi
        done < <(exec timeout -s KILL 2 getent ahostsv4 -- "${nodes[@]}" 2>/dev/null)
    fi
    # One variable may hold 128 KiB (MAX_ARG_STRLEN); far below it, a list this long helps nobody.
    local IFS=, joined
    joined="${entries[*]}"
    if ((${#joined} > 32768)); then
        entries=() seen=,
        add_entries "${first[@]}"
    fi
    for node in "${own[@]}"; do
        if [[ $node =~ ^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9.])?$|^[0-9a-f:]+$ ]]; then add_entries "$node"; fi
    done
    if [[ -n $domain ]]; then add_entries ".$domain"; fi
    add_entries .local 169.254.169.254
    if [[ -n $bypass_private ]]; then add_entries 10.0.0.0/8 172.16.0.0/12 192.168.0.0/16; fi
    add_entries "$@"
    direct="${entries[*]}"
}

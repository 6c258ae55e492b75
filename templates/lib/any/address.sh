# shellcheck shell=bash
# Where a job's tunnel listens, what serves it there, and the environment that points to it.

# Set `address` for job $1, the same on every node of the job: 127.64.0.0/10 with the low 22 bits of the job id. In a
# federation bits 26 to 31 are the cluster (Slurm's FED_MGR_CLUSTER_ID_BEGIN), whose clusters count from 1 alike: they
# are mixed in, so that jobs of one number do not meet on a node that two of them share.
# For shells ($1 is `shell`) it is the user's: 127.128.0.0/10 by uid, 127.192.0.0/10 for uids beyond 22 bits. Those are
# counted modulo 2^22 - 1, for the last address of 127/8 is its broadcast address.
job_address() {
    local number=0
    if [[ $1 =~ ^[0-9]{1,10}$ ]]; then
        # In an arithmetic expression a value is a program; and a zero in front would make it octal.
        number=$((10#$1))
        number=$((64 << 16 | (number ^ (number >> 26 & 63) << 16) & 0x3fffff))
    elif [[ $1 != shell ]]; then
        return 1
    elif ((UID < 1 << 22)); then
        number=$((128 << 16 | UID))
    else
        number=$((192 << 16 | UID % 0x3fffff))
    fi
    address=127.$((number >> 16)).$((number >> 8 & 255)).$((number & 255))
}

# Set `hex` to $address:$port as /proc/net/tcp writes it: the address is the machine's own number there, reversed where
# bytes are little-endian first.
hex_address() {
    local octets
    IFS=. read -r -a octets <<<"$address"
    printf -v hex '%02X%02X%02X%02X:%04X' "${octets[3]}" "${octets[2]}" "${octets[1]}" "${octets[0]}" "$port"
}

# Add to `reason`, which says that the port is taken, whose process has it, as far as the kernel tells.
name_taker() {
    local hex where state uid _
    hex_address
    while read -r _ where _ state _ _ _ uid _; do
        # Listening sockets come first, and of a table of thousands bash would be minutes reading the rest.
        [[ $state == 0A || $state == st ]] || break
        if [[ $state == 0A && ($where == "$hex" || $where == "00000000:${hex#*:}") ]]; then
            reason+=" (uid $uid has it)"
            return 0
        fi
    done 2>/dev/null </proc/net/tcp || :
}

# Set `python` to one that can run the agent: the system's first, for one from a user's environment may be slow to load.
find_python() {
    local minor
    for python in /usr/bin/python3 /usr/libexec/platform-python python3; do
        # A system's own tells its version by another name of the same file, python3.N or platform-python3.N. To start
        # it only to ask would take as long as all the rest here.
        if [[ $python == /* && -x $python ]]; then
            for ((minor = 6; minor < 40; minor++)); do
                if [[ $python -ef ${python%3}3.$minor ]]; then return 0; fi
            done
        fi
        if "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1 </dev/null; then return 0; fi
    done
    return 1
}

# Write the environment for shells of this job, with URLs of scheme $1, served by user $2, into directory $3:
# `name=value` a line, the version first, no_proxy last, without which nobody takes it for whole. Values are made of
# checked sets of characters.
write_env() {
    local step=${SLURM_STEP_ID-} hex direct
    hex_address
    if [[ $step =~ ^[0-9]+$ ]]; then step=$job.$step; else step=''; fi
    no_proxy_list "$bypass_private" ${no_proxy_more[@]+"${no_proxy_more[@]}"}
    printf '%s\n' "version=$state_version" "key=$key" "step=$step" "uid=$2" "listen=$hex" "url=$1://$address:$port" \
        "no_proxy=$direct" >"$3/env"
}

# shellcheck shell=bash
# Where a job's way out listens, what serves it there, and the environment that points to it.

# Set `address` for job $1: 127.64.0.0/10 with the low 22 bits of the job id, the same on every node of the job.
job_address() {
    if [[ $1 == shell ]]; then
        address=127.0.0.1
    else
        address=127.$((64 + ($1 >> 16 & 63))).$(($1 >> 8 & 255)).$(($1 & 255))
    fi
}

# Set `python` to one that can run the gate: the system's first, for one from a user's environment may be slow to load.
find_python() {
    local minor
    for python in /usr/bin/python3 /usr/libexec/platform-python python3; do
        # A system's own tells its version by another name of the same file, python3.N or platform-python3.N. To start it
        # only to ask would take as long as all the rest here.
        if [[ $python == /* && -x $python ]]; then
            for ((minor = 6; minor < 40; minor++)); do
                if [[ $python -ef ${python%3}3.$minor ]]; then return 0; fi
            done
        fi
        if "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1 </dev/null; then return 0; fi
    done
    return 1
}

# Write the environment for shells of this job, with URLs of scheme $1, served by user $2, into directory $3. Half of it is
# never used: a reader wants to see the file `pid`, or a listener at the port, and both come later. Values are made of
# checked sets of characters.
write_env() {
    local step=${SLURM_STEP_ID-} octets listen
    IFS=. read -r -a octets <<<"$address"
    # /proc/net/tcp writes the address as the machine's own number: reversed where bytes are little-endian first.
    printf -v listen '%02X%02X%02X%02X:%04X' "${octets[3]}" "${octets[2]}" "${octets[1]}" "${octets[0]}" "$port"
    if [[ $step =~ ^[0-9]+$ ]]; then step=$job.$step; else step=''; fi
    no_proxy_list "$bypass_private" ${no_proxy_more[@]+"${no_proxy_more[@]}"}
    # In the order in which __hpcproxy_read takes them.
    printf '%s\n' "$key" "$step" "$2" "$listen" "$1://$address:$port" "$direct" >"$3/env"
}

# shellcheck shell=bash
# The files of a state directory that shells read, `env` and `status`: `name=value` a line, the version first.

# Of the files `env` and `status`; sourced/env.sh, sourced/bashrc.sh, account/tunnels.py and node/state/status.py know it too.
state_version=1

# Set the associative array `fields` to what the file $1, `env` or `status` of a state directory, says: `name=value` a line.
# False if it is of another version, or not there; what it says is then not believed.
read_fields() {
    local line
    fields=()
    while read -r line; do
        # shellcheck disable=SC2004 # not a number: the array is associative, the caller's
        if [[ $line =~ ^([a-z_]+)=(.*)$ ]]; then fields[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}; fi
    done 2>/dev/null <"$1" || return 1
    [[ ${fields[version]-} == "$state_version" ]]
}

# Write the environment for shells of this job, with URLs of scheme $1, served by user $2, into directory $3: `name=value` a
# line, the version first, no_proxy last, without which nobody takes it for whole. Values are made of checked sets of
# characters.
write_env() {
    local step=${SLURM_STEP_ID-} hex direct
    hex_address
    if [[ $step =~ ^[0-9]+$ ]]; then step=$job.$step; else step=''; fi
    no_proxy_list "$bypass_private" ${no_proxy_more[@]+"${no_proxy_more[@]}"}
    printf '%s\n' "version=$state_version" "key=$key" "step=$step" "uid=$2" "listen=$hex" "url=$1://$address:$port" \
        "no_proxy=$direct" >"$3/env"
}

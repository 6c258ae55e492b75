# shellcheck shell=bash
# The files of a state directory that shells read, `env` and `status`: `name=value` a line, the version first.

# Of the files `env` and `status`; sourced/env.sh, sourced/bashrc.sh, account/tunnels.py and node/state/status.py know it too.
state_version=1

# Set the associative array `values` to what the file $1, `env` or `status` of a state directory, says: `name=value` a line.
# False if it is of another version, or not there; what it says is then not believed.
read_fields() {
    local line
    values=()
    while read -r line; do
        # shellcheck disable=SC2004 # not a number: the array is associative, the caller's
        if [[ $line =~ ^([a-z_]+)=(.*)$ ]]; then values[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}; fi
    done 2>/dev/null <"$1" || return 1
    [[ ${values[version]-} == "$state_version" ]]
}

# shellcheck shell=bash
# Answers one question and changes nothing; a line for each finding, with tabs between its fields.
#
#   look.sh certificate ACCOUNT PATH…
#                               of those that are certificates: path, end (empty: none), why ACCOUNT does not get in with it
#   look.sh listener JOB        where the tunnel of JOB, or of `shell`, listens, and whose process is there, if one is
#   look.sh nodes               the nodes of this job
#   look.sh python              the python3 that runs the agent here

certificates() {
    local account=$1 path cert_begin cert_end cert_names plain_text reason
    shift
    for path; do
        reason=''
        certificate_fails "$path" "$account" || :
        if read_certificate "$path"; then printf '%s\t%s\t%s\n' "$path" "$cert_end" "$reason"; fi
    done
}

listener() {
    local address reason=''
    job_address "$1" || return 0
    name_taker
    printf '%s:%s\t%s\n' "$address" "$port" "$reason"
}

case ${1-} in
    certificate)
        shift
        certificates "$@"
        ;;
    listener) listener "${2-}" ;;
    nodes)
        job_nodes
        if ((${#nodes[@]})); then printf '%s\n' "${nodes[@]}"; fi
        ;;
    python) if find_python; then printf '%s\n' "$python"; fi ;;
    *) exit 2 ;;
esac

# shellcheck shell=bash
# What a certificate beside a key says of itself. Only ssh-keygen reads certificates; times are those of this node's
# clock and zone, as people write them and as Slurm says when a job ends.

# Set `at` to the path $1 of ssh's configuration with the home in it.
at_home() {
    at=${1/#\~\//$HOME/}
    at=${at/#%d\//$HOME/}
}

# Set `cert_begin`, `cert_end` (empty: it has none) and `cert_names`, its principals, of the certificate $1; false if it
# is none.
read_certificate() {
    local line words listed='' found=''
    cert_begin='' cert_end='' cert_names=''
    [[ -r $1 ]] || return 1
    while IFS=' ' read -r line; do
        case $line in
            Valid:\ *)
                found=1
                read -r -a words <<<"$line"
                case ${words[1]} in
                    from) cert_begin=${words[2]} cert_end=${words[4]-} ;;
                    after) cert_begin=${words[2]} ;;
                    before) cert_end=${words[2]} ;;
                esac
                ;;
            Principals:*) listed=1 ;;
            Critical\ Options:*) listed='' ;;
            ?*) if [[ -n $listed && $line != '(none)' ]]; then cert_names+=${cert_names:+, }$line; fi ;;
        esac
    done < <(ssh-keygen -L -f "$1" 2>/dev/null </dev/null)
    tidy "$cert_names"
    cert_names=$plain_text
    [[ -n $found ]]
}

# True if the certificate $1 has what explains that account $2 does not get in with it; `reason` says so.
certificate_fails() {
    local cert_begin cert_end cert_names now plain_text
    read_certificate "$1" || return 1
    printf -v now '%(%Y-%m-%dT%H:%M:%S)T' -1
    if [[ -n $cert_end && $now > $cert_end ]]; then
        reason="the certificate $1 expired at $cert_end; get a new one"
    elif [[ $now < $cert_begin ]]; then
        reason="the certificate $1 is valid from $cert_begin on only"
    elif [[ -n $2 && -n $cert_names && ", $cert_names," != *", $2,"* ]]; then
        reason="the certificate $1 is for $cert_names; does it take that for the account $2? ask for one that names it"
    fi
    [[ -n $reason ]]
}

# Set `note` to what is to be known of a certificate, among those that ssh reads for the first jump host, that ends too
# soon: before this job, or for a probe within two weeks.
note_certificates() {
    local cert_begin cert_end cert_names plain_text at key line limit='' whose='' paths=()
    note=''
    while read -r line key; do
        at_home "$key"
        case $line in
            certificatefile) paths+=("$at") ;;
            identityfile) if [[ -z $identity ]]; then paths+=("$at-cert.pub"); fi ;;
        esac
    done <<<"$ssh_says"
    if [[ -n $identity ]]; then paths+=("$identity-cert.pub"); fi
    for at in ${paths[@]+"${paths[@]}"}; do
        if [[ $at == *%* ]] || ! read_certificate "$at" || [[ -z $cert_end ]]; then continue; fi
        if [[ -z $limit ]]; then find_limit || return 0; fi
        if [[ $cert_end < $limit ]]; then
            tidy "$at"
            note="the certificate $plain_text ends at $cert_end$whose: a tunnel that breaks after that does not come back"
        fi
    done
}

# Set `limit` to when this job ends at the latest, which only its first node asks Slurm for; for one that is submitted
# now and may run `asked_limit_s` seconds, to when it ends at the earliest if it needs them; else to two weeks from now.
# And `whose` to what that means. False if it is not known.
find_limit() {
    local said now limit_s=$((14 * 24 * 3600))
    if [[ -z ${of_step-} ]]; then
        if ((${asked_limit_s:-0} > 0)); then limit_s=$asked_limit_s whose=', before a job of that time limit'; fi
        printf -v now '%(%s)T' -1
        printf -v limit '%(%Y-%m-%dT%H:%M:%S)T' "$((now + limit_s))"
        return 0
    fi
    whose=', before the time limit of this job'
    if [[ ${SLURM_JOB_END_TIME-} =~ ^[0-9]{9,11}$ ]]; then
        printf -v limit '%(%Y-%m-%dT%H:%M:%S)T' "$SLURM_JOB_END_TIME"
    elif [[ ${SLURM_NODEID-} == 0 ]]; then
        if hear 10 squeue --noheader --jobs="$job" --format=%e 2>/dev/null </dev/null; then limit=$said; fi
    fi
    [[ $limit =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T ]]
}

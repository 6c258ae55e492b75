# shellcheck shell=dash
# Point this shell's programs at the tunnel. Sourced; valid in bash and dash.

# The caller's values are kept as HPCPROXY_SAVED_*, exported so that a child shell can turn the tunnel off as well.
__hpcproxy_save() {
    if [ -n "${http_proxy+x}" ]; then export HPCPROXY_SAVED_http_proxy="$http_proxy"; fi
    if [ -n "${HTTP_PROXY+x}" ]; then export HPCPROXY_SAVED_HTTP_PROXY="$HTTP_PROXY"; fi
    if [ -n "${https_proxy+x}" ]; then export HPCPROXY_SAVED_https_proxy="$https_proxy"; fi
    if [ -n "${HTTPS_PROXY+x}" ]; then export HPCPROXY_SAVED_HTTPS_PROXY="$HTTPS_PROXY"; fi
    if [ -n "${all_proxy+x}" ]; then export HPCPROXY_SAVED_all_proxy="$all_proxy"; fi
    if [ -n "${ALL_PROXY+x}" ]; then export HPCPROXY_SAVED_ALL_PROXY="$ALL_PROXY"; fi
    if [ -n "${no_proxy+x}" ]; then export HPCPROXY_SAVED_no_proxy="$no_proxy"; fi
    if [ -n "${NO_PROXY+x}" ]; then export HPCPROXY_SAVED_NO_PROXY="$NO_PROXY"; fi
    if [ -n "${ftp_proxy+x}" ]; then export HPCPROXY_SAVED_ftp_proxy="$ftp_proxy"; fi
    if [ -n "${grpc_proxy+x}" ]; then export HPCPROXY_SAVED_grpc_proxy="$grpc_proxy"; fi
    if [ -n "${no_grpc_proxy+x}" ]; then export HPCPROXY_SAVED_no_grpc_proxy="$no_grpc_proxy"; fi
    if [ -n "${PIP_PROXY+x}" ]; then export HPCPROXY_SAVED_PIP_PROXY="$PIP_PROXY"; fi
    if [ -n "${NODE_USE_ENV_PROXY+x}" ]; then export HPCPROXY_SAVED_NODE_USE_ENV_PROXY="$NODE_USE_ENV_PROXY"; fi
}

# Set __hpcproxy_* from the env file in directory $1, `name=value` a line. It is read, not sourced: nothing in it can
# run. False if it is not whole; or of another version, whose words may mean something else: then __hpcproxy_foreign is
# $1.
__hpcproxy_read() {
    local line version
    version='' __hpcproxy_step='' __hpcproxy_no_proxy='' __hpcproxy_ca=''
    while IFS='' read -r line; do
        case $line in
            version=*) version=${line#*=} ;;
            key=*) __hpcproxy_key=${line#*=} ;;
            step=*) __hpcproxy_step=${line#*=} ;;
            uid=*) __hpcproxy_uid=${line#*=} ;;
            listen=*) __hpcproxy_listen=${line#*=} ;;
            url=*) __hpcproxy_url=${line#*=} ;;
            no_proxy=*) __hpcproxy_no_proxy=${line#*=} ;;
        esac
    done 2>/dev/null <"$1/env"
    # The last line.
    if [ -z "$__hpcproxy_no_proxy" ]; then return 1; fi
    if [ "$version" != 1 ]; then
        __hpcproxy_foreign=$1
        return 1
    fi
    __hpcproxy_state=$1
    if [ -r "$1/ca" ]; then IFS='' read -r __hpcproxy_ca <"$1/ca" || :; fi
}

# Where the site's proxy intercepts TLS: programs that bring a list of authorities along are given one that has the
# proxy's. What the caller has set himself stays.
__hpcproxy_export_ca() {
    if [ -z "$__hpcproxy_ca" ] || ! [ -r "$__hpcproxy_ca" ]; then return 0; fi
    export HPCPROXY_CA="$__hpcproxy_ca"
    if [ -z "${SSL_CERT_FILE-}" ]; then export SSL_CERT_FILE="$HPCPROXY_CA"; fi
    if [ -z "${REQUESTS_CA_BUNDLE-}" ]; then export REQUESTS_CA_BUNDLE="$HPCPROXY_CA"; fi
    if [ -z "${CURL_CA_BUNDLE-}" ]; then export CURL_CA_BUNDLE="$HPCPROXY_CA"; fi
    if [ -z "${NODE_EXTRA_CA_CERTS-}" ]; then export NODE_EXTRA_CA_CERTS="$HPCPROXY_CA"; fi
    if [ -z "${GIT_SSL_CAINFO-}" ]; then export GIT_SSL_CAINFO="$HPCPROXY_CA"; fi
    if [ -z "${PIP_CERT-}" ]; then export PIP_CERT="$HPCPROXY_CA"; fi
}

# True if the caller's environment names a proxy elsewhere: one of the site's, and the site's rule.
__hpcproxy_site_proxy() {
    local value
    for value in "${http_proxy-}" "${HTTP_PROXY-}" "${https_proxy-}" "${HTTPS_PROXY-}" "${all_proxy-}" "${ALL_PROXY-}"; do
        if [ -n "$value" ] && __hpcproxy_elsewhere "$value"; then return 0; fi
    done
    return 1
}

# True if the caller's no_proxy says that no program is to use any proxy.
__hpcproxy_proxies_nothing() {
    case " ${no_proxy:-${NO_PROXY-}} " in *[,[:space:]]'*'[,[:space:]]*) return 0 ;; esac
    return 1
}

# Export what __hpcproxy_read has set. The caller's own no_proxy stays in force, and so does a proxy of the site's. Half
# of the programs know a `*` only where it stands alone, so ours is not put before it.
__hpcproxy_export() {
    __hpcproxy_restore
    __hpcproxy_save
    local direct
    direct=${no_proxy:-${NO_PROXY-}}
    case $direct in *[!,[:space:]]*) ;; *) direct='' ;; esac
    # An IPv6 address in brackets ends httpx where it reads the list.
    while :; do
        case $direct in
            *'['*']'*) direct=${direct%%'['*}${direct#*'['} ;;
            *) break ;;
        esac
        direct=${direct%%']'*}${direct#*']'}
    done
    if ! __hpcproxy_proxies_nothing; then direct=$__hpcproxy_no_proxy${direct:+,$direct}; fi
    export no_proxy="$direct" NO_PROXY="$direct"
    export HPCPROXY_URL="$__hpcproxy_url" HPCPROXY_KEY="$__hpcproxy_key" HPCPROXY_STEP="$__hpcproxy_step"
    export HPCPROXY_STATE="$__hpcproxy_state" HPCPROXY_LISTEN="$__hpcproxy_uid $__hpcproxy_listen"
    if [ -n "${__hpcproxy_overlap-}" ] && [ -z "${SLURM_OVERLAP+x}" ]; then export SLURM_OVERLAP=1 HPCPROXY_OVERLAP=1; fi
    if [ -z "$__hpcproxy_replace" ] && __hpcproxy_site_proxy; then return 0; fi
    export http_proxy="$__hpcproxy_url" HTTP_PROXY="$__hpcproxy_url"
    export https_proxy="$__hpcproxy_url" HTTPS_PROXY="$__hpcproxy_url"
    __hpcproxy_export_ca
    # A SOCKS all_proxy kills httpx at import; the others would override what is exported above.
    unset all_proxy ALL_PROXY ftp_proxy grpc_proxy no_grpc_proxy PIP_PROXY
    # Node reads proxy variables only if told to, and its fetch dies of a SOCKS one.
    case $__hpcproxy_url in
        http:*) export NODE_USE_ENV_PROXY=1 ;;
        *) unset NODE_USE_ENV_PROXY ;;
    esac
}

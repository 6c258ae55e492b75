# shellcheck shell=dash
# Bring the caller's proxy settings back. Sourced; valid in bash and dash.

# Nothing in the environment leads to a tunnel any more: the caller's values, which HPCPROXY_SAVED_* kept, are back, and
# what was inherited from elsewhere and is a tunnel's is gone. Here it leads nowhere, or to whoever listens there.
__hpcproxy_restore() {
    if [ -n "${HPCPROXY_URL-}" ]; then __hpcproxy_bring_back; fi
    if [ -n "${HPCPROXY_CA-}" ]; then __hpcproxy_take_ca_back; fi
    if [ -n "${http_proxy-}" ] && __hpcproxy_stray "$http_proxy"; then unset http_proxy; fi
    if [ -n "${HTTP_PROXY-}" ] && __hpcproxy_stray "$HTTP_PROXY"; then unset HTTP_PROXY; fi
    if [ -n "${https_proxy-}" ] && __hpcproxy_stray "$https_proxy"; then unset https_proxy; fi
    if [ -n "${HTTPS_PROXY-}" ] && __hpcproxy_stray "$HTTPS_PROXY"; then unset HTTPS_PROXY; fi
    if [ -n "${all_proxy-}" ] && __hpcproxy_stray "$all_proxy"; then unset all_proxy; fi
    if [ -n "${ALL_PROXY-}" ] && __hpcproxy_stray "$ALL_PROXY"; then unset ALL_PROXY; fi
    if [ -n "${ftp_proxy-}" ] && __hpcproxy_stray "$ftp_proxy"; then unset ftp_proxy; fi
    if [ -n "${grpc_proxy-}" ] && __hpcproxy_stray "$grpc_proxy"; then unset grpc_proxy; fi
    if [ -n "${PIP_PROXY-}" ] && __hpcproxy_stray "$PIP_PROXY"; then unset PIP_PROXY; fi
}

__hpcproxy_take_ca_back() {
    if [ "${SSL_CERT_FILE-}" = "$HPCPROXY_CA" ]; then unset SSL_CERT_FILE; fi
    if [ "${REQUESTS_CA_BUNDLE-}" = "$HPCPROXY_CA" ]; then unset REQUESTS_CA_BUNDLE; fi
    if [ "${CURL_CA_BUNDLE-}" = "$HPCPROXY_CA" ]; then unset CURL_CA_BUNDLE; fi
    if [ "${NODE_EXTRA_CA_CERTS-}" = "$HPCPROXY_CA" ]; then unset NODE_EXTRA_CA_CERTS; fi
    if [ "${GIT_SSL_CAINFO-}" = "$HPCPROXY_CA" ]; then unset GIT_SSL_CAINFO; fi
    if [ "${PIP_CERT-}" = "$HPCPROXY_CA" ]; then unset PIP_CERT; fi
    unset HPCPROXY_CA
}

__hpcproxy_bring_back() {
    unset http_proxy HTTP_PROXY https_proxy HTTPS_PROXY all_proxy ALL_PROXY no_proxy NO_PROXY
    unset ftp_proxy grpc_proxy no_grpc_proxy PIP_PROXY NODE_USE_ENV_PROXY
    if [ -n "${HPCPROXY_SAVED_http_proxy+x}" ]; then export http_proxy="$HPCPROXY_SAVED_http_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_HTTP_PROXY+x}" ]; then export HTTP_PROXY="$HPCPROXY_SAVED_HTTP_PROXY"; fi
    if [ -n "${HPCPROXY_SAVED_https_proxy+x}" ]; then export https_proxy="$HPCPROXY_SAVED_https_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_HTTPS_PROXY+x}" ]; then export HTTPS_PROXY="$HPCPROXY_SAVED_HTTPS_PROXY"; fi
    if [ -n "${HPCPROXY_SAVED_all_proxy+x}" ]; then export all_proxy="$HPCPROXY_SAVED_all_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_ALL_PROXY+x}" ]; then export ALL_PROXY="$HPCPROXY_SAVED_ALL_PROXY"; fi
    if [ -n "${HPCPROXY_SAVED_no_proxy+x}" ]; then export no_proxy="$HPCPROXY_SAVED_no_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_NO_PROXY+x}" ]; then export NO_PROXY="$HPCPROXY_SAVED_NO_PROXY"; fi
    if [ -n "${HPCPROXY_SAVED_ftp_proxy+x}" ]; then export ftp_proxy="$HPCPROXY_SAVED_ftp_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_grpc_proxy+x}" ]; then export grpc_proxy="$HPCPROXY_SAVED_grpc_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_no_grpc_proxy+x}" ]; then export no_grpc_proxy="$HPCPROXY_SAVED_no_grpc_proxy"; fi
    if [ -n "${HPCPROXY_SAVED_PIP_PROXY+x}" ]; then export PIP_PROXY="$HPCPROXY_SAVED_PIP_PROXY"; fi
    if [ -n "${HPCPROXY_SAVED_NODE_USE_ENV_PROXY+x}" ]; then
        export NODE_USE_ENV_PROXY="$HPCPROXY_SAVED_NODE_USE_ENV_PROXY"
    fi
    unset HPCPROXY_SAVED_http_proxy HPCPROXY_SAVED_HTTP_PROXY HPCPROXY_SAVED_https_proxy HPCPROXY_SAVED_HTTPS_PROXY
    unset HPCPROXY_SAVED_all_proxy HPCPROXY_SAVED_ALL_PROXY HPCPROXY_SAVED_no_proxy HPCPROXY_SAVED_NO_PROXY
    unset HPCPROXY_SAVED_ftp_proxy HPCPROXY_SAVED_grpc_proxy HPCPROXY_SAVED_no_grpc_proxy HPCPROXY_SAVED_PIP_PROXY
    unset HPCPROXY_SAVED_NODE_USE_ENV_PROXY
    if [ -n "${HPCPROXY_OVERLAP-}" ]; then unset SLURM_OVERLAP HPCPROXY_OVERLAP; fi
    unset HPCPROXY_URL HPCPROXY_KEY HPCPROXY_STEP HPCPROXY_STATE HPCPROXY_LISTEN
}

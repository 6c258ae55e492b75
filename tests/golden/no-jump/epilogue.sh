# shellcheck shell=dash
# hpcproxy epilogue.sh: rendered from the configuration; a change belongs there, not here.
__hpcproxy_home=/home/alice/.hpcproxy

# shellcheck shell=dash
# Bring the caller's proxy settings back. Sourced; valid in bash and dash.

# The caller's values are what HPCPROXY_SAVED_* kept; does nothing where the way out is not on.
__hpcproxy_restore() {
    if [ -z "${HPCPROXY_URL-}" ]; then return 0; fi
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
    unset HPCPROXY_URL HPCPROXY_KEY HPCPROXY_STEP HPCPROXY_STATE
}

# shellcheck shell=dash
# End the way out of this job on all its nodes and bring the caller's settings back. Sourced by a job script.

/bin/bash -p "$__hpcproxy_home/job.sh" stop </dev/null || :
__hpcproxy_restore

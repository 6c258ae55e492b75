# shellcheck shell=dash
# What `.bashrc` gets, once and for all: whatever changes lives in our own file.
if [ -r "${HPCPROXY_HOME:-${HOME-}/.hpcproxy}/bashrc.sh" ]; then
    # shellcheck disable=SC1091 # it is the account's
    . "${HPCPROXY_HOME:-${HOME-}/.hpcproxy}/bashrc.sh"
fi

# shellcheck shell=dash
# What `.bashrc` gets, once and for all: whatever changes lives in our own file.
if [ -r "${HPCPROXY_HOME:-${HOME-}/.hpcproxy}/bashrc.sh" ]; then
    . "${HPCPROXY_HOME:-${HOME-}/.hpcproxy}/bashrc.sh"
fi

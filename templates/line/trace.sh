# shellcheck shell=bash
# Show every line of a rc file that bash runs (-x): the first character is repeated for what runs within another.
PS4='+hpcproxy:${BASH_SOURCE}:${LINENO}:'
set -x
# shellcheck disable=SC1091 # it is the account's
. "$HOME/FILE"

# shellcheck shell=dash
# hpcproxy epilogue.sh: rendered from the configuration; a change belongs there, not here.
__hpcproxy_home=/home/alice/.hpcproxy

#= lib/restore.sh

#= lib/epilogue.sh

# shellcheck shell=dash
# hpcproxy epilogue.sh: rendered from the configuration; a change belongs there, not here.
__hpcproxy_home='/home/größe/my files/.hpcproxy'
__hpcproxy_port=3128

#= lib/sourced/proxies.sh

#= lib/sourced/restore.sh

#= lib/sourced/epilogue.sh

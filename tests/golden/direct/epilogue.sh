# shellcheck shell=dash
# hpcproxy epilogue.sh: rendered from the configuration; a change belongs there, not here.
__hpcproxy_home=/home/alice/.hpcproxy
__hpcproxy_port=2015

#= lib/sourced/proxies.sh

#= lib/sourced/restore.sh

#= lib/sourced/epilogue.sh

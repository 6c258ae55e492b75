# shellcheck shell=dash
# hpcproxy prologue.sh: rendered from the configuration; a change belongs there, not here.
__hpcproxy_home=/home/alice/.hpcproxy
__hpcproxy_replace=''
__hpcproxy_required=''
__hpcproxy_port=2015

#= lib/proxies.sh

#= lib/restore.sh

#= lib/env.sh

#= lib/listening.sh

#= lib/start.sh

#= lib/tell.sh

#= lib/prologue.sh

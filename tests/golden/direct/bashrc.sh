# shellcheck shell=dash
# hpcproxy bashrc.sh: rendered from the configuration; a change belongs there, not here.
__hpcproxy_home=/home/alice/.hpcproxy
__hpcproxy_run=/run/hpcproxy
__hpcproxy_replace=''
__hpcproxy_autostart=''
__hpcproxy_port=2015

#= lib/sourced/proxies.sh

#= lib/sourced/restore.sh

#= lib/sourced/env.sh

#= lib/sourced/listening.sh

#= lib/sourced/start.sh

#= lib/sourced/tell.sh

#= lib/sourced/find.sh

#= lib/sourced/bashrc.sh

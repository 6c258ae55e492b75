#!/bin/bash
# hpcproxy tunnel.sh: rendered from the configuration; a change belongs there, not here.
set -euo pipefail

home=/home/alice/.hpcproxy
run_base=/run/hpcproxy
port=2015
gate=1
scheme=socks5h
identity=''
connect_timeout_s=10
retry_max_s=30
alive_interval_s=5
alive_count=3
logins_per_s=32
log_level=info
syslog=''
linger_s=''
bypass_private=1
cipher_option='Ciphers=^aes128-gcm@openssh.com'
probe_target=127.0.0.1:1
no_proxy_more=()
jump_names=()
jump_destinations=()
jump_ports=()
ssh_options=(
    -T
    -x
    -a
    -o
    BatchMode=yes
    -o
    RemoteCommand=none
    -o
    PermitLocalCommand=no
    -o
    StrictHostKeyChecking=yes
    -o
    'UserKnownHostsFile="/home/alice/.hpcproxy/known_hosts"'
    -o
    GlobalKnownHostsFile=/dev/null
    -o
    UpdateHostKeys=no
    -o
    CheckHostIP=no
    -o
    ExitOnForwardFailure=yes
    -o
    ConnectTimeout=10
    -o
    ConnectionAttempts=1
    -o
    ServerAliveInterval=5
    -o
    ServerAliveCountMax=2
    -o
    TCPKeepAlive=yes
    -o
    LogLevel=INFO
    -o
    ControlPersist=no
)
failure_texts=(
    'Address already in use'
    'REMOTE HOST IDENTIFICATION HAS CHANGED'
    'Host key verification failed'
    'host key is known for'
    'administratively prohibited'
    'Could not resolve hostname'
    'No route to host'
    'Network is unreachable'
    'banner exchange'
    'timed out'
    'not responding'
    'Connection refused'
    'Too many authentication failures'
    'Permission denied ('
    'Bad configuration option'
    'Bad owner or permissions'
    exchange_identification
    'Connection closed by'
    'Connection reset by'
)
failure_layers=(
    port
    host-key
    host-key
    host-key
    forwarding
    name
    route
    route
    route
    route
    route
    route
    key
    key
    ssh
    ssh
    busy
    ssh
    ssh
)
failure_reasons=(
    'the port is taken by another process of this node and nothing of theirs is used; choose another port'
    'the jump host shows another key than the one pinned; ask its admin, then run: hpcproxy init --replace-key'
    'the jump host'"'"'s key is not pinned; run: hpcproxy init --jump USER@HOST'
    'the jump host'"'"'s key is not pinned; run: hpcproxy init --jump USER@HOST'
    'the jump host does not allow forwarding; ask your site, this is its rule to change'
    'its name does not resolve here; use its address'
    'no route to it from here'
    'no route to it from here'
    'it accepts connections and stays silent'
    'it does not answer; is its address right, its firewall open?'
    'it stopped answering'
    'nothing listens at its ssh port'
    'it refused too many keys; name the right one with: hpcproxy init --identity'
    'it refused the key; is the public half in its authorized_keys?'
    'ssh does not know an option in ~/.ssh/config'
    'the permissions of ~/.ssh/config are too wide'
    'it hung up before the login: it has too many logins at once, or shuts this cluster'"'"'s address out for a while'
    'it hung up'
    'it hung up'
)
failure_permanent=(
    1
    1
    1
    1
    1
    0
    0
    0
    0
    0
    0
    0
    1
    1
    1
    1
    0
    0
    0
)

#= lib/process.sh

#= lib/clock.sh

#= lib/uptime.sh

#= lib/spread.sh

#= lib/state.sh

#= lib/nodes.sh

#= lib/reason.sh

#= lib/address.sh

#= lib/sweep.sh

#= lib/home.sh

#= lib/company.sh

#= lib/ssh.sh

#= lib/hold.sh

#= lib/tunnel.sh

#!/bin/bash -p
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
first_cipher=aes128-gcm@openssh.com
login_option='LogVerbose=kex.c:kex_exchange_identification():*,sshconnect2.c:input_userauth_service_accept():*,sshconnect2.c:userauth_pubkey():*,sshconnect2.c:input_userauth_pk_ok():*,sshconnect2.c:send_pubkey_test():*'
probe_target=127.0.0.1:1
probe_target_https=192.0.2.1:443
no_proxy_more=()
jump_names=()
jump_destinations=()
jump_ports=()
ssh_options=(
    -T
    -x
    -a
    -o
    'IgnoreUnknown=*'
    -o
    BatchMode=yes
    -o
    RequestTTY=no
    -o
    RemoteCommand=none
    -o
    SessionType=none
    -o
    PermitLocalCommand=no
    -o
    ForkAfterAuthentication=no
    -o
    ForwardAgent=no
    -o
    ForwardX11=no
    -o
    ForwardX11Trusted=no
    -o
    Tunnel=no
    -o
    GatewayPorts=no
    -o
    ClearAllForwardings=yes
    -o
    ExitOnForwardFailure=yes
    -o
    StrictHostKeyChecking=yes
    -o
    'UserKnownHostsFile="/home/alice/.hpcproxy/known_hosts"'
    -o
    GlobalKnownHostsFile=/dev/null
    -o
    KnownHostsCommand=none
    -o
    VerifyHostKeyDNS=no
    -o
    NoHostAuthenticationForLocalhost=no
    -o
    UpdateHostKeys=no
    -o
    CheckHostIP=no
    -o
    VisualHostKey=no
    -o
    AddKeysToAgent=no
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
    ChannelTimeout=none
    -o
    LogLevel=VERBOSE
    -o
    WarnWeakCrypto=no
    -o
    ControlPersist=no
    -o
    EscapeChar=none
    -o
    EnableEscapeCommandline=no
    -o
    ObscureKeystrokeTiming=no
    -o
    StreamLocalBindUnlink=no
    -k
)
failure_patterns=(
    '^Authenticated to '
    '^SSH2_MSG_SERVICE_ACCEPT received'
    '^Offering public key: (.*) [A-Z0-9-]+ SHA256:'
    '^(/.*|command-line):? line [0-9]+: (Unsupported|Deprecated) option '
    '^Connection .*UNKNOWN port 65535'
    '^(bind .*: )?Address already in use$'
    '^(/.*|command-line):? line [0-9]+: '
    '^Bad owner or permissions on (.*)$'
    '^bind (.*): Cannot assign requested address$'
    '^unix_listener: .*: No space left on device$'
    '^ssh: Could not resolve hostname .*: Address family for hostname not supported'
    '^ssh: Could not resolve hostname '
    '^ssh: connect to host .*: (No route to host|Network is unreachable)$'
    '^ssh: connect to host .*: Connection refused$'
    '^ssh: connect to host .*: Connection timed out$'
    '^Connection timed out during banner exchange'
    '^Timeout, server .* not responding'
    '^Connection .* timed out$'
    '^(kex_exchange_identification: )?banner line [0-9]+: (Exceeded MaxStartups|Not allowed at this time)'
    '^(kex_exchange_identification: )?banner line [0-9]+: '
    '^(kex|ssh)_exchange_identification: '
    '^(kex|ssh)_exchange_identification: '
    '^@ +WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! +@'
    '^@ +WARNING: REVOKED HOST KEY DETECTED! +@'
    '^Host key .* revoked by file (.*)$'
    '^Host key verification failed'
    '^No .* host key is known for '
    '^Unable to negotiate with .*: no matching ([a-z -]+) found. Their offer: (.*)$'
    '^Authenticated .*with partial success'
    '^Permissions (0[0-7]+) for '"'"'(.*)'"'"' are too open'
    '^Load key "(.*\.pub)": '
    '^Load key "(.*)": (error in libcrypto|invalid format)'
    '^((send_pubkey_test|sign_and_send_pubkey): )?no mutual signature '
    '^Received disconnect from .*:2: Too many authentication failures'
    '^[^:]*: Permission denied \(([^)]*,)?publickey'
    '^[^:]*: Permission denied \(([^)]*,)?publickey'
    '^[^:]*: Permission denied \((.*)\)'
    '^channel [0-9]+: open failed: administratively prohibited'
    '^Received disconnect from .* port [0-9]+:[0-9]+: (.*)$'
    '^Connection (closed|reset) by '
    '^Connection (closed|reset) by '
    '^Connection (closed|reset) by '
    '^Connection (closed|reset) by '
    '^Connection (closed|reset) by '
)
failure_layers=(
    phase
    phase
    offered
    skip
    hop
    port
    config
    config
    config
    node
    name
    name
    route
    route
    route
    route
    route
    route
    skip
    phase
    route
    busy
    host-key
    host-key
    host-key
    host-key
    host-key
    ssh
    key
    key
    key
    key
    key
    key
    key
    key
    key
    forwarding
    ssh
    ssh
    ssh
    ssh
    route
    busy
)
failure_reasons=(
    up
    login
    offered
    skip
    'the way to it (ProxyJump or ProxyCommand in ~/.ssh/config) ends before it'
    'the port is taken by another process of this node and nothing of theirs is used; choose another port'
    'ssh cannot read its configuration: %0'
    'ssh does not read %1, which others may write; chmod 600'
    'the configuration of ssh has it connect from %1 (BindAddress), which is none of this machine'"'"'s addresses'
    'no space is left for ssh'"'"'s socket: %0'
    'it has no address of the kind that the configuration of ssh asks for (AddressFamily)'
    'its name does not resolve here; use its address'
    'no route to it from here'
    'nothing listens at its ssh port'
    'it does not answer; is its address right, its firewall open?'
    'it accepts connections and stays silent'
    'it stopped answering'
    'it does not answer; is its address right, its firewall open?'
    skip
    greeted
    'what answers there is no ssh server; is the port right?'
    'it hung up before the login: it has too many logins at once, or shuts this cluster'"'"'s address out for a while'
    'the jump host shows another key than the one pinned; ask its admin, then run: hpcproxy init --replace-key'
    'the jump host shows a key that is marked as revoked; do not connect, ask its admin'
    'the jump host'"'"'s key is revoked by %1; ask its admin'
    'the jump host'"'"'s key is not pinned; run: hpcproxy init --jump USER@HOST'
    'the jump host'"'"'s key is not pinned; run: hpcproxy init --jump USER@HOST'
    'it and the ssh of this node have no %1 in common; it offers %2'
    'it took the key and wants a second factor too, which no job can give; ask its admin for a login by key alone'
    'ssh does not use the key %2, for others may read it (mode %1); run: chmod 600 %2'
    '%1 is the public half of a key, which is no use here; name the other one, without .pub (IdentityFile, or hpcproxy init --identity)'
    'ssh cannot read the key %1 (%2): cut short, or with the line ends of Windows? ssh-keygen -y -f %1 tries it'
    'it takes no signature of the kind that this key makes:%k; make another (ssh-keygen -t ed25519) and put its public half there'
    'it refused too many keys; name the right one with: hpcproxy init --identity'
    'ssh had no key to offer it: is IdentityFile a key, its kind among PubkeyAcceptedAlgorithms, publickey among PreferredAuthentications? ssh -v says which%k'
    'it refused the key%k; is the public half in its authorized_keys, without a from= that shuts this node out, and the account there alive?'
    'it takes no keys at all, only %1, which a job cannot give; ask your site for a login by key'
    'the jump host does not allow forwarding, by its own rule (AllowTcpForwarding) or your key'"'"'s in authorized_keys (restrict); ask your site. If it lets through to certain hosts (PermitOpen), name one in your settings (allow)'
    'it ended the connection: %1'
    'it hung up'
    'it hung up during the login; is the account there alive?%t'
    'it hung up during the login; is the account there alive?%t'
    'what answers there is no ssh server; is the port right?'
    'it hung up before the login: it has too many logins at once, or shuts this cluster'"'"'s address out for a while'
)
failure_permanent=(
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
    0
    0
    0
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
    1
    1
    1
    1
    1
    1
    1
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
)
failure_phases=(
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    greeted
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    ''
    login
    ''
    ''
    ''
    ''
    up
    login
    offered
    greeted
    ''
)
failure_more=(
    0
    0
    0
    0
    0
    0
    0
    0
    0
    0
    0
    0
    0
    0
    0
    1
    0
    0
    0
    0
    1
    1
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
    1
    0
    0
    0
    0
    0
    0
    0
    0
    0
    1
    1
)

#= lib/process.sh

#= lib/clock.sh

#= lib/uptime.sh

#= lib/spread.sh

#= lib/state.sh

#= lib/nodes.sh

#= lib/certificate.sh

#= lib/reason.sh

#= lib/address.sh

#= lib/sweep.sh

#= lib/home.sh

#= lib/company.sh

#= lib/ssh.sh

#= lib/userconfig.sh

#= lib/hold.sh

#= lib/tunnel.sh

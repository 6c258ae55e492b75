#!/bin/bash -p
# hpcproxy tunnel.sh: rendered from the configuration; a change belongs there, not here.
set -euo pipefail

home='/home/größe/my files/.hpcproxy'
run_base=/run/hpcproxy
least_bash=402
least_ssh=704
port=3128
agent=''
via=ssh
uses_ssh=1
scheme=socks5
identity='/home/größe/my keys/id_ed25519'
connect_timeout_s=5
retry_max_s=15
alive_interval_s=7
alive_count=2
logins_per_s=32
log_level=info
syslog=''
grace_s=''
bypass_private=''
first_cipher=aes128-gcm@openssh.com
login_option='LogVerbose=kex.c:kex_exchange_identification():*,sshconnect2.c:input_userauth_service_accept():*,sshconnect2.c:userauth_pubkey():*,sshconnect2.c:input_userauth_pk_ok():*,sshconnect2.c:send_pubkey_test():*'
probe_target=127.0.0.1:1
probe_target_https=192.0.2.1:443
no_proxy_more=(
    tracker.example.org
    .cluster.example.org
    192.0.2.0/24
)
jump_names=(
    hello@192.168.31.10
    'u@[2001:db8::1]:2222'
)
jump_destinations=(
    hello@192.168.31.10
    u@2001:db8::1
)
jump_ports=(
    ''
    2222
)
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
    'UserKnownHostsFile="/home/größe/my files/.hpcproxy/known_hosts"'
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
    ConnectTimeout=5
    -o
    ConnectionAttempts=1
    -o
    ServerAliveInterval=7
    -o
    ServerAliveCountMax=1
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
    -i
    '/home/größe/my keys/id_ed25519'
    -o
    IdentitiesOnly=yes
)
hop_options=(
    -o
    'IgnoreUnknown=*'
    -o
    ControlMaster=no
    -o
    BatchMode=yes
    -o
    RemoteCommand=none
    -o
    PermitLocalCommand=no
    -o
    ForkAfterAuthentication=no
    -o
    ForwardAgent=no
    -o
    ForwardX11=no
    -o
    Tunnel=no
    -o
    ClearAllForwardings=yes
    -o
    StrictHostKeyChecking=yes
    -o
    VerifyHostKeyDNS=no
    -o
    NoHostAuthenticationForLocalhost=no
    -o
    UpdateHostKeys=no
    -o
    AddKeysToAgent=no
    -o
    ConnectionAttempts=1
    -o
    ControlPersist=no
)
failures=(
    '^Authenticated to ' phase up 0 '' 0
    '^Local version string ' phase seen 0 '' 0
    '^SSH2_MSG_SERVICE_ACCEPT received' phase login 0 '' 0
    '^Offering public key: (.*) [A-Z0-9-]+ SHA256:' offered offered 0 '' 0
    '^(/.*|command-line):? line [0-9]+: (Unsupported|Deprecated) option ' skip skip 0 '' 0
    '^((banner exchange|ssh_dispatch_run_fatal|packet_write_wait): )?Connection .*UNKNOWN port 65535' hop 'the way to it (ProxyJump or ProxyCommand in ~/.ssh/config) ends before it' 0 '' 0
    '^(bind( .*)?: )?Address already in use$' port 'the port is taken by another process of this node and nothing of theirs is used; choose another port' 1 '' 0
    '^(/.*|command-line):? line [0-9]+: ' config 'ssh cannot read its configuration: %0' 1 '' 0
    '^Bad owner or permissions on (.*)$' config 'ssh does not read %1, which others may write; chmod 600' 1 '' 0
    '^bind:? (.*): Cannot assign requested address$' config 'the configuration of ssh has it connect from %1 (BindAddress), which is none of this machine'"'"'s addresses' 1 '' 0
    '^unix_listener: .*: No space left on device$' node 'no space is left for ssh'"'"'s socket: %0' 0 '' 0
    '^vdollar_percent_expand: env var (.*) has no value' config 'the configuration of ssh names the variable %1, which is not set here' 1 '' 0
    '^ssh: Could not resolve hostname .*: Address family for hostname not supported' name 'it has no address of the kind that the configuration of ssh asks for (AddressFamily)' 0 '' 0
    '^ssh: Could not resolve hostname ' name 'its name does not resolve here; use its address' 0 '' 0
    '^ssh: connect to host .*: (No route to host|Network is unreachable)$' route 'no route to it from here' 0 '' 0
    '^ssh: connect to host .*: Connection refused$' route 'nothing listens at its ssh port' 0 '' 0
    '^ssh: connect to host .*: Connection timed out$' route 'it does not answer; is its address right, its firewall open?' 0 '' 0
    '^Connection timed out during banner exchange' route 'it accepts connections and stays silent' 0 '' 1
    '^Timeout, server .* not responding' route 'it stopped answering' 0 '' 0
    '^Connection .* timed out$' route 'it does not answer; is its address right, its firewall open?' 0 '' 0
    '^(kex_exchange_identification: )?banner line [0-9]+: (Exceeded MaxStartups|Not allowed at this time)' skip skip 0 '' 0
    '^(kex_exchange_identification: )?banner line [0-9]+: ' phase greeted 0 '' 0
    '^(kex|ssh)_exchange_identification: ' route 'what answers there is no ssh server; is the port right?' 0 greeted 1
    '^(kex|ssh)_exchange_identification: ' busy 'it hung up before the login: it has too many logins at once, or shuts this cluster'"'"'s address out for a while' 0 '' 1
    '^banner exchange: Connection ' busy 'it hung up before the login: it has too many logins at once, or shuts this cluster'"'"'s address out for a while' 0 '' 1
    '^write: (Broken pipe|Connection reset by peer)$' busy 'it hung up before the login: it has too many logins at once, or shuts this cluster'"'"'s address out for a while' 0 '' 1
    '^@ +WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! +@' host-key 'the jump host shows another key than the one pinned; ask its admin, then run: hpcproxy init --replace-key' 1 '' 0
    '^@ +WARNING: REVOKED HOST KEY DETECTED! +@' host-key 'the jump host shows a key that is marked as revoked; do not connect, ask its admin' 1 '' 0
    '^Error checking host key .* in revoked keys file (.*): (.*)$' config 'ssh cannot read the list of revoked keys %1 (%2), and then believes no host; RevokedHostKeys in its configuration names it' 1 '' 0
    '^Host key .* revoked by file (.*)$' host-key 'the jump host'"'"'s key is revoked by %1; ask its admin' 1 '' 0
    '^Host key verification failed' host-key 'the jump host'"'"'s key is not pinned; run: hpcproxy init --jump USER@HOST' 1 '' 0
    '^No .* host key is known for ' host-key 'the jump host'"'"'s key is not pinned; run: hpcproxy init --jump USER@HOST' 1 '' 0
    '^Unable to negotiate with .*: no matching ([a-z -]+) found. Their offer: (.*)$' ssh 'it and the ssh of this node have no %1 in common; it offers %2' 1 '' 0
    '^Authenticated .*with partial success' key 'it took the key and wants a second factor too, which no job can give; ask its admin for a login by key alone' 1 '' 1
    '^Permissions (0[0-7]+) for '"'"'(.*)'"'"' are too open' key 'ssh does not use the key %2, for others may read it (mode %1); run: chmod 600 %2' 1 '' 1
    '^Load key "(.*\.pub)": ' key '%1 is the public half of a key, which is no use here; name the other one, without .pub (IdentityFile, or hpcproxy init --identity)' 1 '' 1
    '^Load key "(.*)": (error in libcrypto|invalid format)' key 'ssh cannot read the key %1 (%2): cut short, or with the line ends of Windows? ssh-keygen -y -f %1 tries it' 1 '' 1
    '^sign_and_send_pubkey: signing failed for [A-Z0-9]+-SK "(.*)"( from agent)?: ' key 'the key %1 needs its security key plugged in and touched, which no job can do; use one that is a file alone' 1 '' 1
    '^sign_and_send_pubkey: signing failed( for .*)?: agent refused operation' key 'it took a key with which the ssh-agent then did not sign: is it locked, or does it ask for a confirmation?; no job can give one' 1 '' 1
    '^((send_pubkey_test|sign_and_send_pubkey): )?no mutual signature ' key 'it takes no signature of the kind that this key makes:%k; make another (ssh-keygen -t ed25519) and put its public half there' 1 '' 1
    '^Received disconnect from .*:2: Too many authentication failures' key 'it refused too many keys; name the right one with: hpcproxy init --identity' 1 '' 0
    '^([^:]*: )?Permission denied \(([^)]*,)?publickey' key 'ssh had no key to offer it: is IdentityFile a key, its kind among PubkeyAcceptedAlgorithms, publickey among PreferredAuthentications? ssh -v says which%k' 1 login 0
    '^([^:]*: )?Permission denied \(([^)]*,)?publickey' key 'it refused the key%k; is the public half in its authorized_keys, without a from= that shuts this node out, and the account there alive?' 1 '' 0
    '^([^:]*: )?Permission denied \((.*)\)' key 'it takes no keys at all, only %2, which a job cannot give; ask your site for a login by key' 1 '' 0
    '^channel [0-9]+: open failed: administratively prohibited' forwarding 'the jump host does not allow forwarding, by its own rule (AllowTcpForwarding) or your key'"'"'s in authorized_keys (restrict); ask your site. If it lets through to certain hosts (PermitOpen), name one in your settings (allow)' 1 '' 0
    '^Received disconnect from .* port [0-9]+:[0-9]+: (.*)$' ssh 'it ended the connection: %1' 0 '' 0
    '^Authentication failed[.]$' ssh 'it hung up during the login; is the account there alive?%t' 0 '' 0
    '^Connection (closed|reset) by ' ssh 'it hung up' 0 up 0
    '^Connection (closed|reset) by ' ssh 'it hung up during the login; is the account there alive?%t' 0 login 0
    '^Connection (closed|reset) by ' ssh 'it hung up during the login; is the account there alive?%t' 0 offered 0
    '^Connection (closed|reset) by ' route 'what answers there is no ssh server; is the port right?' 0 greeted 1
    '^Connection (closed|reset) by ' busy 'it hung up before the login: it has too many logins at once, or shuts this cluster'"'"'s address out for a while' 0 seen 1
    '^Connection (closed|reset) by ' ssh 'it hung up during the login; is the account there alive?%t' 0 '' 0
)

#= lib/step/least.sh

#= lib/any/process.sh

#= lib/any/clock.sh

#= lib/any/bounded.sh

#= lib/any/uptime.sh

#= lib/any/spread.sh

#= lib/any/state.sh

#= lib/any/fields.sh

#= lib/any/nodes.sh

#= lib/any/address.sh

#= lib/tunnel/log.sh

#= lib/tunnel/signals.sh

#= lib/tunnel/certificate.sh

#= lib/tunnel/reason.sh

#= lib/tunnel/credentials.sh

#= lib/tunnel/sweep.sh

#= lib/tunnel/home.sh

#= lib/tunnel/election.sh

#= lib/tunnel/job_processes.sh

#= lib/tunnel/ssh.sh

#= lib/tunnel/userconfig.sh

#= lib/tunnel/agent.sh

#= lib/tunnel/hold.sh

#= lib/tunnel/probe.sh

#= lib/tunnel/tunnel.sh

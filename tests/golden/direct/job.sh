#!/bin/bash -p
# hpcproxy job.sh: rendered from the configuration; a change belongs there, not here.
set -euo pipefail

home=/home/alice/.hpcproxy
run_base=/run/hpcproxy
least_bash=402
least_slurm=2011
required=''
silent=''
rolled_out=''
ready_timeout_s=30
logins_per_s=32
via=direct
jump_count=0
harmless='[a-zA-Z_]+=["'"'"']?[$][{]?(((https?|all|ftp|HTTPS?|ALL|FTP)_(proxy|PROXY))|HPCPROXY_URL)[}]?["'"'"']?'
sourced='(^|[ 	;&|])(source|[.])[ 	]+["'"'"']?(~/|[$][{]?HOME[}]?/|[$][{]?SLURM_SUBMIT_DIR[}]?/)?([a-zA-Z0-9_./-]+)'
line_patterns=(
    '(^|[ 	;&|({`'"'"'",=])((APPTAINER|SINGULARITY)ENV_)?(((https?|all|ftp|HTTPS?|ALL|FTP)_|[{][a-zA-Z,]+[}]_)(proxy|PROXY))='
    '(^|[ 	;&|({`'"'"'"])setenv[ 	]+(((https?|all|ftp|HTTPS?|ALL|FTP)_|[{][a-zA-Z,]+[}]_)(proxy|PROXY))[ 	]'
    '(^|[ 	;&|({`'"'"'",=])((APPTAINER|SINGULARITY)ENV_)?(no_proxy|NO_PROXY)=["'"'"']?([^ 	;&|"'"'"']*,)?[*]([,"'"'"' 	;&|)]|$)'
    '(^|[ 	;&|({`'"'"'"])(auto)?ssh[ 	]([^|;&#]*[ 	])?-([a-zA-Z0-9]*D|o[ 	]*["'"'"']?DynamicForward[ 	=])[ 	]*[^ 	]'
    '(^|[ 	;&|({`'"'"'"])(sshuttle|proxychains4?|tsocks|torsocks)[ 	]'
    '(^|[ 	;&|({`'"'"'"])(curl|git|pip3?|wget|conda|mamba|npm|yarn|pnpm)[ 	]([^|;&#]*[ 	])?(-x|--proxy|--preproxy|--socks[45][a-z0-9-]*|-c[ 	]*["'"'"']?https?[.]proxy|-e[ 	]*["'"'"']?https?_proxy|config[ 	]([^|;&#]*[ 	.])?[a-zA-Z_.-]*prox(y|ies|y_servers)[a-zA-Z_.-]*)[ 	=]+["'"'"']?[^ 	-]'
    '[ 	](--(https?-)?proxy(-server)?)[ 	=]["'"'"']?([a-z0-9+]+://|[a-zA-Z0-9.-]+:[0-9])'
    '-D(https?[.]proxyHost|socksProxyHost)='
    '(^|[ 	;&|({`'"'"'"])for[ 	]+[a-zA-Z0-9_]+[ 	]+in[ 	]([^;]*[ 	])?((https?|all|ftp|HTTPS?|ALL|FTP)_(proxy|PROXY))([ 	;]|$)'
    '(^|[ 	;&|({`'"'"'"])(module[ 	]+(load|add|swap)|ml)[ 	]+([^;&|#]*[ 	])?([^ 	;&|#/]*prox[^ 	;&|#]*)'
    '(^|[ 	;&|({`'"'"'"])unset[ 	]+(-v[ 	]+)?([a-zA-Z_ 	]*[ 	])?(((https?|all|ftp|HTTPS?|ALL|FTP)_|[{][a-zA-Z,]+[}]_)(proxy|PROXY))([ 	;&|]|$)'
    '(^|[ 	;&|({`'"'"'"])env[ 	]([^|;&#]*[ 	])?(-u[ 	]*|--unset=)((https?|all|ftp|HTTPS?|ALL|FTP)_(proxy|PROXY))([ 	;&|]|$)'
)
line_groups=(
    4
    2
    4
    0
    2
    2
    1
    1
    3
    5
    4
    4
)
line_words=(
    'sets %, which wins over the tunnel; take it out'
    'sets %, which wins over the tunnel; take it out'
    'sets % to *, so that no program uses the tunnel; take it out'
    'opens a forward by hand (ssh -D); the tunnel takes its place, take it out'
    'leads programs elsewhere by %; take it out'
    'tells % a proxy of its own, which wins over the tunnel; take it out'
    'gives a program a proxy of its own (%), which wins over the tunnel; take it out'
    'gives Java a proxy of its own (%), which wins over the tunnel; take it out'
    'treats % in a loop: if it sets it, that wins over the tunnel'
    'loads %, which may set another proxy; the tunnel takes its place'
    'takes % away, and with it the tunnel; take it out'
    'takes % away, and with it the tunnel; take it out'
)
taken_from=10
tool_names=(
    curl
    curl
    wget
    npm
    npm
    yarn
    git
    git
    git
    pip
    pip
    pip
    conda
    conda
    conda
    conda
    cargo
    R
    aria2
    gradle
    s3cmd
)
tool_files=(
    .curlrc
    .config/curlrc
    .wgetrc
    .npmrc
    /etc/npmrc
    .yarnrc.yml
    .gitconfig
    .config/git/config
    /etc/gitconfig
    .config/pip/pip.conf
    .pip/pip.conf
    /etc/pip.conf
    .condarc
    .conda/.condarc
    .mambarc
    /etc/conda/.condarc
    .cargo/config.toml
    .Renviron
    .aria2/aria2.conf
    .gradle/gradle.properties
    .s3cfg
)
tool_patterns=(
    '^[ 	]*(--?)?(proxy|socks[45][a-z0-9-]*|preproxy|x)([ 	]*[=:][ 	]*|[ 	]+)[^ 	=:]'
    '^[ 	]*(--?)?(proxy|socks[45][a-z0-9-]*|preproxy|x)([ 	]*[=:][ 	]*|[ 	]+)[^ 	=:]'
    '^([ 	]*)(https?_proxy|use_proxy)[ 	]*=[ 	]*[^ 	]'
    '^([ 	]*)(proxy|https?-proxy)[ 	]*=[ 	]*[^ 	n]'
    '^([ 	]*)(proxy|https?-proxy)[ 	]*=[ 	]*[^ 	n]'
    '^([ 	]*)(https?Proxy)[ 	]*:'
    '^([ 	]*)(proxy)[ 	]*[=:][ 	]*[^ 	]'
    '^([ 	]*)(proxy)[ 	]*[=:][ 	]*[^ 	]'
    '^([ 	]*)(proxy)[ 	]*[=:][ 	]*[^ 	]'
    '^([ 	]*)(proxy)[ 	]*[=:][ 	]*[^ 	]'
    '^([ 	]*)(proxy)[ 	]*[=:][ 	]*[^ 	]'
    '^([ 	]*)(proxy)[ 	]*[=:][ 	]*[^ 	]'
    '^([ 	]*)(proxy_servers)[ 	]*:'
    '^([ 	]*)(proxy_servers)[ 	]*:'
    '^([ 	]*)(proxy_servers)[ 	]*:'
    '^([ 	]*)(proxy_servers)[ 	]*:'
    '^([ 	]*)(proxy)[ 	]*[=:][ 	]*[^ 	]'
    '^([ 	]*)((https?|HTTPS?)_(proxy|PROXY))[ 	]*=[ 	]*[^ 	]'
    '^([ 	]*)((all|https?)-proxy)[ 	]*=[ 	]*[^ 	]'
    '^([ 	]*)(systemProp[.]https?[.]proxyHost)[ 	]*=[ 	]*[^ 	]'
    '^([ 	]*)(proxy_host)[ 	]*=[ 	]*[^ 	]'
)
tool_words='reads % here, which wins over the tunnel'
variable_tools=(
    npm
    npm
    npm
    npm
    yarn
    cargo
    git
    Java
    Java
    Maven
    gradle
)
variable_names=(
    npm_config_proxy
    npm_config_https_proxy
    NPM_CONFIG_PROXY
    NPM_CONFIG_HTTPS_PROXY
    YARN_HTTPS_PROXY
    CARGO_HTTP_PROXY
    GIT_PROXY_COMMAND
    JAVA_TOOL_OPTIONS
    _JAVA_OPTIONS
    MAVEN_OPTS
    GRADLE_OPTS
)
variable_patterns=(
    .
    .
    .
    .
    .
    .
    .
    '[pP]roxyHost='
    '[pP]roxyHost='
    '[pP]roxyHost='
    '[pP]roxyHost='
)
variable_words='gives % a proxy of its own, which wins over the tunnel'
variable_ours='(^|[^0-9.])127[.](6[4-9]|[7-9][0-9]|1[0-9][0-9]|2[0-9][0-9])[.]'

#= lib/step/least.sh

#= lib/any/process.sh

#= lib/any/clock.sh

#= lib/any/uptime.sh

#= lib/any/spread.sh

#= lib/any/state.sh

#= lib/any/fields.sh

#= lib/step/status.sh

#= lib/step/others.sh

#= lib/step/slurmversion.sh

#= lib/step/step.sh

#= lib/step/answers.sh

#= lib/step/waiting.sh

#= lib/step/job.sh

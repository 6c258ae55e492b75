# shellcheck shell=bash
# The next SIZE characters are a script, taken whole and run.
IFS= read -r -N SIZE hpcproxy_part
eval "$hpcproxy_part"
